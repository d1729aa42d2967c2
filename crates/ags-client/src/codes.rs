//! Error codes of Tencent Cloud API 3.0 and of AGS. Codes are dotted: a parent such as `ResourceNotFound`
//! stands alone or before a detail (`ResourceNotFound.SandboxTool`); [`is`] compares with that in mind.

/// Whether `code` is `parent` or a detail of it.
pub fn is(code: &str, parent: &str) -> bool {
    code.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

macro_rules! codes {
    ($($name:ident = $code:literal;)+) => {
        $(pub const $name: &str = $code;)+
    };
}

codes! {
    AUTH_FAILURE = "AuthFailure";
    AUTH_INVALID_AUTHORIZATION = "AuthFailure.InvalidAuthorization";
    AUTH_SECRET_ID_NOT_FOUND = "AuthFailure.SecretIdNotFound";
    AUTH_SIGNATURE_EXPIRE = "AuthFailure.SignatureExpire";
    AUTH_SIGNATURE_FAILURE = "AuthFailure.SignatureFailure";
    AUTH_TOKEN_FAILURE = "AuthFailure.TokenFailure";
    AUTH_UNAUTHORIZED_OPERATION = "AuthFailure.UnauthorizedOperation";
    FAILED_OPERATION = "FailedOperation";
    DEPENDENCY_UNAVAILABLE = "FailedOperation.DependencyUnavailable";
    DUPLICATE_REQUEST = "FailedOperation.DuplicateRequest";
    REQUEST_IN_PROGRESS = "FailedOperation.RequestInProgress";
    FAILED_STORAGE_MOUNT = "FailedOperation.StorageMount";
    INTERNAL_ERROR = "InternalError";
    INTERNAL_NETWORK_SETUP_FAILED = "InternalError.NetworkSetupFailed";
    INTERNAL_UNKNOWN = "InternalError.Unknown";
    INTERNAL_VPC_SERVICE_UNAVAILABLE = "InternalError.VPCServiceUnavailable";
    INVALID_ACTION = "InvalidAction";
    INVALID_PARAMETER = "InvalidParameter";
    INVALID_VALUE = "InvalidParameterValue";
    INVALID_INSTANCE_IDS = "InvalidParameterValue.InstanceIds";
    INVALID_MOUNT_OPTION = "InvalidParameterValue.MountOption";
    INVALID_ROLE_ARN = "InvalidParameterValue.RoleArn";
    INVALID_SANDBOX_TOOL = "InvalidParameterValue.SandboxTool";
    INVALID_SECURITY_GROUP_ID = "InvalidParameterValue.SecurityGroupId";
    INVALID_STORAGE_MOUNT = "InvalidParameterValue.StorageMount";
    INVALID_SUBNET_ID = "InvalidParameterValue.SubnetId";
    INVALID_TIMEOUT = "InvalidParameterValue.Timeout";
    INVALID_TOOL_IDS = "InvalidParameterValue.ToolIds";
    INVALID_TOOL_TYPE = "InvalidParameterValue.ToolType";
    LIMIT_EXCEEDED = "LimitExceeded";
    LIMIT_API_KEY_QUOTA = "LimitExceeded.APIKeyQuota";
    LIMIT_SANDBOX_INSTANCE = "LimitExceeded.SandboxInstance";
    MISSING_PARAMETER = "MissingParameter";
    MISSING_ROLE_ARN = "MissingParameter.RoleArn";
    MISSING_VPC_PARAMETERS = "MissingParameter.VPCParameters";
    NO_SUCH_VERSION = "NoSuchVersion";
    REQUEST_LIMIT_EXCEEDED = "RequestLimitExceeded";
    REQUEST_SIZE_LIMIT_EXCEEDED = "RequestSizeLimitExceeded";
    RESOURCE_INSUFFICIENT = "ResourceInsufficient";
    RESOURCE_IN_USE = "ResourceInUse";
    SANDBOX_TOOL_IN_USE = "ResourceInUse.SandboxTool";
    RESOURCE_NOT_FOUND = "ResourceNotFound";
    SANDBOX_INSTANCE_NOT_FOUND = "ResourceNotFound.SandboxInstance";
    SANDBOX_TOOL_NOT_FOUND = "ResourceNotFound.SandboxTool";
    SECURITY_GROUP_NOT_FOUND = "ResourceNotFound.SecurityGroup";
    STORAGE_MOUNT_NOT_FOUND = "ResourceNotFound.StorageMount";
    SUBNET_NOT_FOUND = "ResourceNotFound.Subnet";
    RESOURCE_UNAVAILABLE = "ResourceUnavailable";
    SANDBOX_TOOL_UNAVAILABLE = "ResourceUnavailable.SandboxTool";
    SERVICE_UNAVAILABLE = "ServiceUnavailable";
    UNAUTHORIZED_OPERATION = "UnauthorizedOperation";
    UNKNOWN_PARAMETER = "UnknownParameter";
    UNSUPPORTED_OPERATION = "UnsupportedOperation";
    SANDBOX_INSTANCE_STATE = "UnsupportedOperation.SandboxInstance";
    UNSUPPORTED_REGION = "UnsupportedRegion";
}
