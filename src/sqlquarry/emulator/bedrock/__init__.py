"""Bedrock: import models and answer with them.

`control_plane` runs import jobs: `admission` checks a model's files, `records` shows jobs and models, and `timing`
makes clients wait. `runtime` answers: `invocation` (with `allowed_keys` and `constraint`) or `converse`
reads a request, `engine` decodes it with a `served_model`, and `answer_formats` or `converse` writes the answer.
"""
