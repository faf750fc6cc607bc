"""The only place that creates boto3 clients: sessions, S3, errors and their advice, and whose bucket is meant."""

from sqlquarry.aws.clients import aws_client, aws_session, session_environment
from sqlquarry.aws.owners import expect_bucket_owners
from sqlquarry.aws.polling import Polling

__all__ = [
    "Polling",
    "aws_client",
    "aws_session",
    "expect_bucket_owners",
    "session_environment",
]
