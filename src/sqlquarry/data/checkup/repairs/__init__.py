"""Repair what is mechanical in records: each repair is a rule, and a proof shows that the meaning is kept."""
