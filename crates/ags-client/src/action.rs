//! The sixteen actions.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::*;

/// When a call whose outcome is unknown (no answer, 5xx, InternalError) may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It changes nothing.
    Read,
    /// It changes something, and a second time changes nothing more. A repeated stop or delete may be told
    /// "not found", which then means done.
    Idempotent,
    /// It creates, guarded by its `ClientToken`; without one it must not be repeated. A repeat may be told
    /// `FailedOperation.DuplicateRequest`, which then means that the first attempt took effect.
    WithClientToken,
    /// It creates without a guard, or a repeat would be refused because of the first attempt's effect.
    Never,
}

/// A request object of the API.
pub trait Action: Serialize + DeserializeOwned + Send + Sync {
    /// Value of `X-TC-Action`.
    const NAME: &'static str;
    /// When the call may be repeated.
    const REPEAT: Repeat;
    /// What the response holds besides `RequestId`.
    type Output: Serialize + DeserializeOwned + Send;

    /// The idempotency token, where the request has one.
    fn client_token(&self) -> Option<&str> {
        None
    }

    /// Whether this very request may be sent again when it is unknown what the first did.
    fn repeatable(&self) -> bool {
        match Self::REPEAT {
            Repeat::Read | Repeat::Idempotent => true,
            Repeat::WithClientToken => self.client_token().is_some_and(|token| !token.is_empty()),
            Repeat::Never => false,
        }
    }
}

macro_rules! actions {
    ($($name:ident: $request:ident => $output:ident, $repeat:ident $(, $token:ident)?;)+) => {
        $(impl Action for $request {
            const NAME: &'static str = stringify!($name);
            const REPEAT: Repeat = Repeat::$repeat;
            type Output = $output;
            $(fn client_token(&self) -> Option<&str> {
                self.$token.as_deref()
            })?
        })+

        /// Names of all actions of API v2025-09-20.
        pub const ACTIONS: &[&str] = &[$(stringify!($name)),+];
    };
}

// Pause and resume are state changes that are refused from the state they lead to: repeating one would turn
// its success into an error. Reading the instance's status tells what became of it.
actions! {
    AcquireSandboxInstanceToken:
        AcquireSandboxInstanceTokenRequest => AcquireSandboxInstanceTokenResponse, Idempotent;
    CreateAPIKey: CreateApiKeyRequest => CreateApiKeyResponse, Never;
    CreatePreCacheImageTask:
        CreatePreCacheImageTaskRequest => CreatePreCacheImageTaskResponse, Never;
    CreateSandboxTool:
        CreateSandboxToolRequest => CreateSandboxToolResponse, WithClientToken, client_token;
    DeleteAPIKey: DeleteApiKeyRequest => DeleteApiKeyResponse, Idempotent;
    DeleteSandboxTool: DeleteSandboxToolRequest => DeleteSandboxToolResponse, Idempotent;
    DescribeAPIKeyList: DescribeApiKeyListRequest => DescribeApiKeyListResponse, Read;
    DescribePreCacheImageTask:
        DescribePreCacheImageTaskRequest => DescribePreCacheImageTaskResponse, Read;
    DescribeSandboxInstanceList:
        DescribeSandboxInstanceListRequest => DescribeSandboxInstanceListResponse, Read;
    DescribeSandboxToolList:
        DescribeSandboxToolListRequest => DescribeSandboxToolListResponse, Read;
    PauseSandboxInstance: PauseSandboxInstanceRequest => PauseSandboxInstanceResponse, Never;
    ResumeSandboxInstance: ResumeSandboxInstanceRequest => ResumeSandboxInstanceResponse, Never;
    StartSandboxInstance:
        StartSandboxInstanceRequest => StartSandboxInstanceResponse, WithClientToken, client_token;
    StopSandboxInstance: StopSandboxInstanceRequest => StopSandboxInstanceResponse, Idempotent;
    UpdateSandboxInstance:
        UpdateSandboxInstanceRequest => UpdateSandboxInstanceResponse, Idempotent;
    UpdateSandboxTool: UpdateSandboxToolRequest => UpdateSandboxToolResponse, Idempotent;
}
