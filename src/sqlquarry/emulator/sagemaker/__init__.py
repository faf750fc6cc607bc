"""The emulated SageMaker, which runs training jobs on this machine.

`operations` answers requests, and `request_checks` refuses invalid ones. `job_run` runs a job through its stages, which
`job_record` stores. Each instance is a `container`. `s3_files` and `checkpoint_sync` copy its files.
"""
