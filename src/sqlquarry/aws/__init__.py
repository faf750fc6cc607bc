"""boto3 sessions and clients, S3 transfers, advice for AWS errors and checks of bucket owners.

No other part of the library creates boto3 clients.
"""

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
