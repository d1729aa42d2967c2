//! What a stranger needs to see when the stack is ready.

use super::stack::Stack;

pub(super) fn ready(stack: &Stack) {
    let directory = stack.state().directory().display().to_string();
    println!("{}", text(&stack.url(), stack.key(), &directory));
    if let Some(https) = stack.https() {
        println!("{}", tls_text(&https.variables(), &directory));
    }
}

/// What programs need in order to trust the certificate, and to find sandboxes by their names.
fn tls_text(variables: &[(&str, String)], state: &str) -> String {
    let exports: String = variables.iter().map(|(name, value)| format!("  export {name}={value}\n")).collect();
    format!(
        r"The certificate is of an authority made here ({state}/tls/ca.pem), which may vouch for localhost alone. Programs trust it,
and E2B's SDKs find the gateway, with these (all in dev.env: `set -a; . {state}/dev.env; set +a`):

{exports}
Names below localhost are known to browsers and curl; other programs need libnss-myhostname (apt) or systemd-resolved.
"
    )
}

/// The commands are for copying as they stand.
fn text(url: &str, key: &str, state: &str) -> String {
    format!(
        r#"
ags-gateway is ready.

  API    {url}
  Docs   {url}/docs
  Key    {key}
  State  {state}  (all of this in dev.env, logs in logs/)

Start a sandbox and run a command in it:

  ID=$(curl -sS {url}/v1/instances -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{}}' | grep -o 'ins[0-9a-z]\{{26\}}' | head -n 1)
  curl -sS {url}/v1/instances/$ID/exec -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{"cmd": "echo hello from $(hostname)"}}'

Ctrl-C stops everything.
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_name_this_stack() {
        let text = text("http://127.0.0.1:1", "agsk_0", "/state");
        assert!(text.contains("curl -sS http://127.0.0.1:1/v1/instances -H 'Authorization: Bearer agsk_0'"));
        assert!(text.contains("-d '{}'"));
        assert!(text.contains("http://127.0.0.1:1/docs"));
        let text = tls_text(&[("E2B_DOMAIN", "sandbox.localhost:1".into())], "/state");
        assert!(text.contains("\n  export E2B_DOMAIN=sandbox.localhost:1\n"));
    }
}
