"""The table of AWS's error codes: what each means for the caller, and what to do about it.

No catalogue of error messages is published, so the fragments come from AWS's samples and pages and from public reports.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Service = Literal["bedrock", "sagemaker"]

CONCURRENT_JOBS = "concurrent model import"  # a quota of one running job per account and region, not adjustable
INVALID_ROLE = "role arn is invalid"


class KnownError(NamedTuple):
    """What to do about an error.

    Args:
        codes: AWS's codes, or the classes of errors that botocore raises itself.
        advice: what to do.
        fragment: a part of the message in lower case; "" fits any message.
        service: the service that the request was made for; None fits any.
    """

    codes: tuple[str, ...]
    advice: str
    fragment: str = ""
    service: Service | None = None


_DENIED = ("AccessDenied", "403")
_EXPIRED = ("ExpiredTokenException", "ExpiredToken", "RequestExpired")
_NOT_VALID = (
    *("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "AuthFailure"),
    *("InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "InvalidToken"),
)
_NOT_LOGGED_IN = (
    *("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "UnauthorizedSSOTokenError"),
)
_DISCONNECTED = (
    *("EndpointConnectionError", "ConnectTimeoutError", "ConnectionClosedError", "ReadTimeoutError"),
    "ResponseStreamingError",
)
_OTHER_REGION = ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
_UNAVAILABLE = (
    *("InternalServerException", "ServiceUnavailableException", "ModelTimeoutException", "ModelStreamErrorException"),
)

_BEDROCK = (
    KnownError(
        ("ValidationException",),
        "A role that was just made takes minutes to be known; then check that its trust policy names "
        "bedrock.amazonaws.com, and drop an aws:SourceArn condition in favor of aws:SourceAccount "
        "(sqlquarry.bedrock.create_import_role makes such a role).",
        INVALID_ROLE,
        "bedrock",
    ),
    KnownError(
        ("ValidationException",),
        "This model answers InvokeModel, not Converse: ask it so, or through ImportedModel, which does that by itself.",
        "doesn't support the model",
        "bedrock",
    ),
    KnownError(
        ("ValidationException",),
        "Check the ARN, the region and that the model was not deleted meanwhile.",
        "model identifier is invalid",
        "bedrock",
    ),
    KnownError(
        ("ValidationException",),
        "Names of jobs and models are unique per account and region; choose another job_name or name.",
        "name",
        "bedrock",
    ),
    KnownError(
        ("ServiceQuotaExceededException",),
        "One import job runs at a time; wait for the other one.",
        CONCURRENT_JOBS,
        "bedrock",
    ),
    KnownError(
        ("ServiceQuotaExceededException",),
        "An account holds 3 imported models unless quota L-45B04988 is raised; delete one that is not needed.",
        service="bedrock",
    ),
    KnownError(
        ("ConflictException",),
        "Names are unique per account and region; choose another job_name or name.",
        service="bedrock",
    ),
    KnownError(("TooManyTagsException",), "Give fewer tags.", service="bedrock"),
    KnownError(
        ("AccessDeniedException",),
        "The caller needs bedrock:CreateModelImportJob, Get…, List…, InvokeModel on imported-model/*, and iam:PassRole "
        "on the role with iam:PassedToService = bedrock.amazonaws.com; accounts of AWS events often lack them.",
        service="bedrock",
    ),
    KnownError(
        ("NoSuchBucket",), "Create the bucket in the region of the import, or give another s3_uri.", service="bedrock"
    ),
    KnownError(
        ("ResourceNotFoundException",),
        "Check the ARN, the region and the account. If it was deleted, import_model makes it again from what is on S3.",
        service="bedrock",
    ),
    KnownError(
        ("ThrottlingException",),
        "Lower `concurrency`, or ask for a higher request rate in Service Quotas.",
        service="bedrock",
    ),
    KnownError(
        ("ModelErrorException",),
        "The model could not answer this request: check the prompt's length, and with probe_parity that the weights "
        "are sound.",
        service="bedrock",
    ),
    KnownError(
        _UNAVAILABLE, "The service is in trouble. Ask again later; what is done already is kept.", service="bedrock"
    ),
)

_SAGEMAKER = (
    KnownError(
        ("ValidationException",),
        "SageMaker cannot take the role: its trust policy must allow sts:AssumeRole to sagemaker.amazonaws.com; a role "
        "that was just made takes a minute to be known.",
        "assume",
        "sagemaker",
    ),
    KnownError(("ValidationException",), "Check the job's name, the region and the account.", "not found", "sagemaker"),
    KnownError(
        ("ValidationException",),
        "Check the image's URI and that it is in the job's region; the role needs ecr:BatchGetImage and "
        "ecr:GetDownloadUrlForLayer on it, and ecr:GetAuthorizationToken.",
        "image",
        "sagemaker",
    ),
    KnownError(
        ("ValidationException",),
        "The role needs s3:ListBucket, s3:GetObject and s3:PutObject on the bucket (and kms rights on its key), and "
        "the bucket must be in the job's region.",
        "s3",
        "sagemaker",
    ),
    KnownError(
        ("AccessDeniedException",),
        "The caller needs iam:PassRole on the role, with iam:PassedToService = sagemaker.amazonaws.com.",
        "passrole",
        "sagemaker",
    ),
    KnownError(
        ("AccessDeniedException",),
        "The caller needs sagemaker:CreateTrainingJob, DescribeTrainingJob and StopTrainingJob, iam:PassRole on the "
        "role, and logs:DescribeLogStreams and logs:GetLogEvents on /aws/sagemaker/TrainingJobs.",
        service="sagemaker",
    ),
    KnownError(("ResourceInUse",), "Another job has this name; give another `name`.", service="sagemaker"),
    KnownError(
        ("NoSuchBucket", "404"), "Create the bucket in the job's region, or give another `bucket`.", service="sagemaker"
    ),
    KnownError(
        _DENIED,
        "The caller needs s3:ListBucket, s3:GetObject and s3:PutObject there, and kms:GenerateDataKey with a key.",
        service="sagemaker",
    ),
    KnownError(("ThrottlingException",), "Too many requests; try again in a minute.", service="sagemaker"),
    KnownError(
        _EXPIRED,
        "Renew the credentials (aws sso login, or a new session). A running job continues: launcher.attach(name).",
        service="sagemaker",
    ),
    KnownError(
        _DISCONNECTED,
        "Check the network, the session's region and AWS_ENDPOINT_URL. A running job continues: launcher.attach(name).",
        service="sagemaker",
    ),
)

_ANY_SERVICE = (
    KnownError(("AccessDenied",), "Somebody who may manage IAM must make the role.", "not authorized to perform: iam:"),
    KnownError(_DENIED, "The caller needs s3:ListBucket, GetObject, PutObject and DeleteObject there."),
    KnownError(("NoSuchBucket",), "Check the bucket's name, or create it."),
    KnownError(("NoSuchUpload",), "Another process finished or aborted this upload meanwhile. Run it again."),
    KnownError(_OTHER_REGION, "The bucket is in another region: use a session of that region, or another bucket."),
    KnownError(_EXPIRED, "Renew the credentials (aws sso login, or a new session); what is done already is kept."),
    KnownError(
        _NOT_VALID,
        "The credentials are not valid (any more). Log in again, and check the clock of this machine.",
    ),
    KnownError(_NOT_LOGGED_IN, "Log in to AWS (aws configure, aws sso login), or pass a session that has credentials."),
    KnownError(_DISCONNECTED, "Check the network, the session's region and AWS_ENDPOINT_URL, then run it again."),
)

KNOWN_ERRORS = (*_BEDROCK, *_SAGEMAKER, *_ANY_SERVICE)  # the first that fits counts
