//! From an action's name and parameters to its answer.

use std::sync::Arc;

use ags_client::types::*;
use ags_client::{Action, request};
use serde_json::Value;

use super::error::{ApiError, ApiResult};
use super::idempotency::{Admission, Ticket};
use super::{Cloud, validate};
use crate::faults::Struck;

/// Parameters as they came.
#[derive(Clone, Debug)]
pub enum Params {
    /// The body of a POST.
    Json(bytes::Bytes),
    /// The query of a GET.
    Query(String),
}

impl Params {
    fn read<T: Action>(&self) -> ApiResult<T> {
        let read = match self {
            Self::Json(body) => request::decode(body),
            Self::Query(query) => request::decode_query(query),
        };
        read.map_err(|fault| ApiError::new(fault.code(), fault.to_string()))
    }

    /// A top-level string parameter, for those who look before the action does.
    pub fn peek(&self, name: &str) -> Option<String> {
        match self {
            Self::Json(body) => {
                let value: Value = serde_json::from_slice(body).ok()?;
                value.get(name)?.as_str().map(str::to_owned)
            }
            Self::Query(query) => url::form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned()),
        }
    }
}

/// Whether the API has this action.
pub fn known(action: &str) -> bool {
    ags_client::ACTIONS.contains(&action)
}

impl Cloud {
    /// Performs an action.
    ///
    /// # Errors
    /// As documented for the action; `InvalidAction` for one that is not.
    pub async fn perform(self: &Arc<Self>, action: &str, params: &Params, struck: &Struck) -> ApiResult<Value> {
        match action {
            "CreateSandboxTool" => {
                let request: CreateSandboxToolRequest = params.read()?;
                match self.admitted(&request)? {
                    Repeated::Answer(value) => Ok(value),
                    Repeated::Run(ticket) => finish(ticket, self.create_tool(request, struck)),
                }
            }
            "StartSandboxInstance" => {
                let request: StartSandboxInstanceRequest = params.read()?;
                match self.admitted(&request)? {
                    Repeated::Answer(value) => Ok(value),
                    Repeated::Run(ticket) => finish(ticket, self.start_instance(request, struck).await),
                }
            }
            "UpdateSandboxTool" => to_value(self.update_tool(params.read()?)),
            "DeleteSandboxTool" => to_value(self.delete_tool(params.read()?)),
            "DescribeSandboxToolList" => to_value(self.list_tools(&params.read()?)),
            "UpdateSandboxInstance" => to_value(self.update_instance(params.read()?)),
            "StopSandboxInstance" => to_value(self.stop_instance(params.read()?, struck).await),
            "PauseSandboxInstance" => to_value(self.pause_instance(params.read()?, struck).await),
            "ResumeSandboxInstance" => to_value(self.resume_instance(params.read()?, struck).await),
            "DescribeSandboxInstanceList" => to_value(self.list_instances(&params.read()?)),
            "AcquireSandboxInstanceToken" => to_value(self.acquire_token(&params.read()?)),
            "CreateAPIKey" => to_value(self.create_api_key(params.read()?)),
            "DescribeAPIKeyList" => to_value(Ok(self.list_api_keys())),
            "DeleteAPIKey" => to_value(self.delete_api_key(&params.read()?)),
            "CreatePreCacheImageTask" => to_value(self.create_precache(params.read()?)),
            "DescribePreCacheImageTask" => to_value(self.describe_precache(params.read()?)),
            _ => Err(ApiError::new("InvalidAction", format!("Action `{action}` does not exist."))),
        }
    }

    fn admitted<T: Action>(&self, request: &T) -> ApiResult<Repeated> {
        let Some(token) = request.client_token().filter(|token| !token.is_empty()) else {
            return Ok(Repeated::Run(None));
        };
        validate::client_token(token)?;
        let params = serde_json::to_value(request).map_err(|error| ApiError::invalid(error.to_string()))?;
        let mode = self.tunables().client_token;
        match self.client_tokens.admit(mode, T::NAME, token, params, self.clock.now())? {
            Admission::Run(ticket) => Ok(Repeated::Run(Some(ticket))),
            Admission::Replay(value) => Ok(Repeated::Answer(value)),
        }
    }
}

enum Repeated {
    Answer(Value),
    Run(Option<Ticket>),
}

fn finish<T: serde::Serialize>(ticket: Option<Ticket>, result: ApiResult<T>) -> ApiResult<Value> {
    let value = to_value(result)?;
    if let Some(ticket) = ticket {
        ticket.done(value.clone());
    }
    Ok(value)
}

fn to_value<T: serde::Serialize>(result: ApiResult<T>) -> ApiResult<Value> {
    serde_json::to_value(result?).map_err(|error| ApiError::new("InternalError", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_and_body_say_the_same() {
        let body = Params::Json(r#"{"InstanceId":"i1","Memory":false}"#.into());
        let query = Params::Query("InstanceId=i1&Memory=false".into());
        let read = |params: &Params| params.read::<PauseSandboxInstanceRequest>().unwrap();
        assert_eq!(read(&body), read(&query));
        assert_eq!(body.peek("InstanceId"), query.peek("InstanceId"));
    }

    #[test]
    fn what_is_missing_or_wrong_has_its_code() {
        let code = |params: Params| params.read::<PauseSandboxInstanceRequest>().unwrap_err().code;
        assert_eq!(code(Params::Json("{}".into())), "MissingParameter");
        assert_eq!(code(Params::Query("Memory=true".into())), "MissingParameter");
        assert_eq!(code(Params::Json(r#"{"InstanceId":7}"#.into())), "InvalidParameter");
        assert_eq!(code(Params::Json("[".into())), "InvalidParameter");
        assert_eq!(code(Params::Query("InstanceId=a&Memory=perhaps".into())), "InvalidParameter");
    }
}
