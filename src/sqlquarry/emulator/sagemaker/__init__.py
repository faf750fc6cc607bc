"""SageMaker: run training jobs on this machine.

`operations` answers requests, of which `request_checks` refuses some. `job_run` takes a job through its stages, which
`job_record` shows: each instance is a `container`, and `s3_files` and `checkpoint_sync` move its files.
"""
