"""The emulated Bedrock, which imports models and answers with them.

`control_plane` runs import jobs. `admission` checks a model's files, `records` stores jobs and models, and `timing`
makes clients wait. `runtime` answers requests. `invocation` (with `allowed_keys` and `constraint`) or `converse` parses
a request, `engine` decodes it with a `served_model`, and `answer_formats` or `converse` formats the answer.
"""
