"""Table of AWS error codes with advice for the caller.

AWS publishes no list of its error messages, so the fragments come from AWS's samples and pages and from public reports.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Service = Literal["bedrock", "sagemaker"]

CONCURRENT_JOBS = "concurrent model import"  # the quota: one running job per account and region, not adjustable
INVALID_ROLE = "role arn is invalid"


class KnownError(NamedTuple):
    """Advice for an error.

    Args:
        codes: AWS's error codes, or class names of errors that botocore raises itself.
        advice: what to do.
        fragments: parts of messages in lower case. An error matches if its message contains one of them, which must
            therefore be specific: messages quote names and URIs that may contain any word. Without fragments, any
            message matches.
        service: service that the request was made for. None matches any service.
    """

    codes: tuple[str, ...]
    advice: str
    fragments: tuple[str, ...] = ()
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
        "Bedrock may need some minutes to see a new role. If the error persists, check that the role's trust policy "
        "names bedrock.amazonaws.com, and replace an aws:SourceArn condition with aws:SourceAccount "
        "(sqlquarry.bedrock.create_import_role creates such a role).",
        (INVALID_ROLE,),
        "bedrock",
    ),
    KnownError(
        ("ValidationException",),
        "This model supports InvokeModel but not Converse. Call InvokeModel, or use ImportedModel, which does that "
        "by itself.",
        ("doesn't support the model",),
        "bedrock",
    ),
    KnownError(
        ("ValidationException",),
        "Check the ARN and the region, and that the model has not been deleted.",
        ("model identifier is invalid",),
        "bedrock",
    ),
    KnownError(
        ("ValidationException",),
        "Names of jobs and models must be unique per account and region. Choose another job_name or name.",
        ("name is currently in use",),  # github.com/aws/sagemaker-python-sdk/pull/6076
        "bedrock",
    ),
    KnownError(
        ("ServiceQuotaExceededException",),
        "Only one import job can run at a time. Wait until the other job ends.",
        (CONCURRENT_JOBS,),
        "bedrock",
    ),
    KnownError(
        ("ServiceQuotaExceededException",),
        "An account can have 3 imported models unless quota L-45B04988 is raised. Delete a model that is not needed.",
        service="bedrock",
    ),
    KnownError(
        ("ConflictException",),
        "Names must be unique per account and region. Choose another job_name or name.",
        service="bedrock",
    ),
    KnownError(("TooManyTagsException",), "Use fewer tags.", service="bedrock"),
    KnownError(
        ("AccessDeniedException",),
        "The caller needs bedrock:CreateModelImportJob, Get…, List…, InvokeModel on imported-model/*, and iam:PassRole "
        "on the role with iam:PassedToService = bedrock.amazonaws.com. Accounts for AWS events often lack them.",
        service="bedrock",
    ),
    KnownError(
        ("NoSuchBucket",), "Create the bucket in the region of the import, or use another s3_uri.", service="bedrock"
    ),
    KnownError(
        ("ResourceNotFoundException",),
        "Check the ARN, the region and the account. If the model was deleted, import_model imports it again from the "
        "files on S3.",
        service="bedrock",
    ),
    KnownError(
        ("ThrottlingException",),
        "Lower `concurrency`, or request a higher rate in Service Quotas.",
        service="bedrock",
    ),
    KnownError(
        ("ModelErrorException",),
        "The model could not answer this request. Check the length of the prompt, and check the weights with "
        "probe_parity.",
        service="bedrock",
    ),
    KnownError(_UNAVAILABLE, "The service has a problem. Try again later. Finished work is kept.", service="bedrock"),
)

_SAGEMAKER = (
    KnownError(
        ("ValidationException",),
        "SageMaker cannot assume the role. Its trust policy must allow sts:AssumeRole for sagemaker.amazonaws.com. "
        "SageMaker may need a minute to see a new role.",
        ("could not assume role",),
        "sagemaker",
    ),
    KnownError(
        ("ValidationException",),
        "Check the job's name, the region and the account.",
        ("requested resource not found",),
        "sagemaker",
    ),
    KnownError(
        ("ValidationException",),
        "Check the image's URI, and that the image is in the job's region. The role needs ecr:BatchGetImage and "
        "ecr:GetDownloadUrlForLayer on the image, and ecr:GetAuthorizationToken.",
        # aws/sagemaker-python-sdk issue 2063, aws/amazon-sagemaker-examples issues 1476 and 2489
        ("invalid training image", "requested image", "in registry id"),
        "sagemaker",
    ),
    KnownError(
        ("ValidationException",),
        "The role needs s3:ListBucket, s3:GetObject and s3:PutObject on the bucket (and KMS permissions on its key), "
        "and the bucket must be in the job's region.",
        ("no s3 objects found", "s3:listbucket", "s3:getobject", "s3:putobject"),
        "sagemaker",
    ),
    KnownError(
        ("AccessDeniedException",),
        "The caller needs iam:PassRole on the role, with iam:PassedToService = sagemaker.amazonaws.com.",
        ("passrole",),
        "sagemaker",
    ),
    KnownError(
        ("AccessDeniedException",),
        "The caller needs sagemaker:CreateTrainingJob, DescribeTrainingJob and StopTrainingJob, iam:PassRole on the "
        "role, and logs:DescribeLogStreams and logs:GetLogEvents on /aws/sagemaker/TrainingJobs.",
        service="sagemaker",
    ),
    KnownError(("ResourceInUse",), "Another job has this name. Use another `name`.", service="sagemaker"),
    KnownError(
        ("NoSuchBucket", "404"), "Create the bucket in the job's region, or use another `bucket`.", service="sagemaker"
    ),
    KnownError(
        _DENIED,
        "The caller needs s3:ListBucket, s3:GetObject and s3:PutObject, and kms:GenerateDataKey if a KMS key is used.",
        service="sagemaker",
    ),
    KnownError(("ThrottlingException",), "There were too many requests. Try again in a minute.", service="sagemaker"),
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
    KnownError(
        ("AccessDenied",), "Ask somebody who may manage IAM to create the role.", ("not authorized to perform: iam:",)
    ),
    KnownError(_DENIED, "The caller needs s3:ListBucket, GetObject, PutObject and DeleteObject on this location."),
    KnownError(("NoSuchBucket",), "Check the bucket's name, or create the bucket."),
    KnownError(("NoSuchUpload",), "Another process has finished or aborted this upload. Try again."),
    KnownError(_OTHER_REGION, "The bucket is in another region. Use a session for that region, or another bucket."),
    KnownError(_EXPIRED, "Renew the credentials (aws sso login, or a new session). Finished work is kept."),
    KnownError(
        _NOT_VALID,
        "The credentials are invalid or have expired. Log in again, and check the clock of this machine.",
    ),
    KnownError(_NOT_LOGGED_IN, "Log in to AWS (aws configure, aws sso login), or pass a session that has credentials."),
    KnownError(_DISCONNECTED, "Check the network, the session's region and AWS_ENDPOINT_URL, then try again."),
)

KNOWN_ERRORS = (*_BEDROCK, *_SAGEMAKER, *_ANY_SERVICE)  # the first entry that matches is used
