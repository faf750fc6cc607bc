"""Measure how close a merged model is to the adapter on the weights that the adapter was trained on."""
