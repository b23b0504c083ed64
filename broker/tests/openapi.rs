//! What the HTTP port says of itself, tried by schemathesis: each endpoint that only reads, with thousands of inputs.

use std::path::Path;
use std::process::Command;

use crate::foreign::python_of_tests;
use crate::support::{Place, events, gzip_lines};

#[test]
fn the_http_port_is_as_it_describes_itself() {
    let place = Place::with_small_steps();
    let file = place.write("hour.json.gz", &gzip_lines(&events(0, 60)));
    place.json(&["backfill", "github", &file]);
    let up = place.up(&[]);
    let schemathesis = Path::new(&python_of_tests()).with_file_name("schemathesis");
    let output = Command::new(schemathesis)
        .current_dir(place.home.path())
        .args(["run", &format!("{}/api/openapi.json", up.http), "--max-examples", "40", "--seed", "1", "--no-color"])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
        // What never ends, what does things, and what others send.
        .args(["--exclude-path-regex", "^/(api/tail|api/commands|webhooks)"])
        // A health that says "not ready" is an answer.
        .args(["--request-timeout", "20"])
        .output()
        .expect("schemathesis is installed by `./test`");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    assert!(up.end().success());
}
