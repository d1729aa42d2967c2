//! Runs of code.

use serde_json::{Value, json};

use super::bench::{Bench, events, statuses};
use crate::harness::run;

#[test]
fn code_has_results_and_files() {
    run(async {
        let bench = Bench::start().await;
        let body = json!({"tool": "ci", "files": [{"path": "n.txt", "content": "20"}], "env": {"PLUS": "22"},
            "code": "import os\nn = int(open('n.txt').read())\nprint('read')\nopen('m.txt', 'w').write('out')\nn + int(os.environ['PLUS'])",
            "collect": ["m.txt"]});
        let done = bench.create(&body).await.expect(200);
        assert_eq!((&done["status"], &done["exit_code"]), (&json!("done"), &json!(0)), "{done:#}");
        assert_eq!((&done["stdout"], &done["results"][0]["text"]), (&json!("read\n"), &json!("42")));
        assert_eq!((&done["files"][0]["content"], &done["exec_id"]), (&json!("out"), &Value::Null));
        bench.assert_nothing_is_left();
        bench.assert_input_is_forgotten().await;
        assert_eq!(bench.get(done["id"].as_str().unwrap()).await, done);
    });
}

#[test]
fn code_that_raises_and_code_that_takes_too_long_are_done() {
    run(async {
        let bench = Bench::start().await;
        let raising = bench.create(&json!({"tool": "ci", "code": "1 / 0"})).await.expect(200);
        assert_eq!((&raising["status"], &raising["exit_code"]), (&json!("done"), &json!(1)));
        assert_eq!(raising["raised"]["name"], "ZeroDivisionError");
        let body =
            json!({"tool": "ci", "code": "print('begun', flush=True)\nimport time\ntime.sleep(100)", "timeout": "3s"});
        let late = bench.create(&body).await.expect(200);
        assert_eq!((&late["status"], &late["timed_out"]), (&json!("done"), &json!(true)), "{late:#}");
        assert_eq!((&late["exit_code"], &late["stdout"]), (&Value::Null, &json!("begun\n")));
        bench.assert_nothing_is_left();
    });
}

#[test]
fn code_is_followed_as_it_goes() {
    run(async {
        let bench = Bench::start().await;
        let body = json!({"tool": "ci", "code": "print('a')\n6 * 7"});
        let told = events(&bench.stream(&body, "application/x-ndjson").await.text().await.unwrap());
        let of = |kind: &str| told.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
        assert_eq!((&of("stdout")[0]["data"], &of("result")[0]["text"]), (&json!("a\n"), &json!("42")));
        assert_eq!((of("started").len(), of("exit").len()), (1, 1));
        assert_eq!(statuses(&told).last(), Some(&"done"));
        bench.assert_nothing_is_left();
    });
}
