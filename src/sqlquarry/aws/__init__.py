"""The only place that creates boto3 clients: sessions, retries, and whose bucket every S3 request is meant for."""

from sqlquarry.aws.clients import aws_client, aws_session, session_environment, transfer_config
from sqlquarry.aws.owners import expect_bucket_owners
from sqlquarry.aws.polling import Polling

__all__ = ["Polling", "aws_client", "aws_session", "expect_bucket_owners", "session_environment", "transfer_config"]
