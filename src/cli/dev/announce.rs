//! What a stranger needs to see when the stack is ready.

use super::stack::Stack;

pub(super) fn ready(stack: &Stack) {
    println!("{}", text(&stack.url(), stack.key(), &stack.state().directory().display().to_string()));
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
    }
}
