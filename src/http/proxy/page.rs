//! An error as a page, for people whose browser asked for one.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

use crate::{
    error::Error,
    http::problem::{Cause, Problem},
};

/// No script, nothing loaded: the style stands in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'";

/// The page of an error: the same status and the same text as the problem document.
pub fn of(error: Error) -> Response {
    let problem = Problem::of(error.inner());
    let page = render(&problem);
    let mut response = error.into_response();
    *response.body_mut() = page.into();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.remove(header::CONTENT_LENGTH);
    debug_assert!(response.extensions().get::<Cause>().is_some(), "the log needs the cause");
    response
}

fn render(problem: &Problem) -> String {
    let sandbox = problem.sandbox.as_ref().map(|sandbox| {
        let reason = sandbox.stop_reason.as_deref().map(|reason| format!(" ({})", escaped(reason))).unwrap_or_default();
        format!("<p>Sandbox <code>{}</code> is {}{reason}.</p>", escaped(&sandbox.id), escaped(&sandbox.status))
    });
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{status} {title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:15vh auto;padding:0 1rem;color:#223}}\
         h1{{font-size:1.3rem}}small{{color:#667}}</style>\n\
         <h1>{title}</h1><p>{detail}</p>{sandbox}<p><small>{status} <code>{code}</code> · request {request}</small></p></html>\n",
        status = problem.status,
        title = escaped(problem.title),
        detail = escaped(&problem.detail),
        sandbox = sandbox.unwrap_or_default(),
        code = problem.code.as_str(),
        request = escaped(&problem.request_id),
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn nothing_of_a_text_becomes_markup() {
        let page = of(Error::new(Code::PortNotOpen, "<script>alert(1)</script> & \"more\""));
        assert_eq!(page.status(), 502);
        let text = render(&Problem::of(Error::new(Code::PortNotOpen, "<script>\"&").inner()));
        assert!(text.contains("&lt;script&gt;&quot;&amp;"), "{text}");
        assert!(!text.contains("<script>"));
    }
}
