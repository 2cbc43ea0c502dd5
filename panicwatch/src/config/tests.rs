//! Tests with configurations as users write them, and the problems reported for them.

use super::*;
use crate::{
    config::{Bytes, Hook, Protocol},
    recorder::OverheadBudget,
};

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(text, "p.toml", env).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn refused(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    load(text, env).expect_err("it is refused")
}

#[test]
fn the_shipped_sample_is_the_defaults() {
    let sample = include_str!("../../../deploy/panicwatch.toml");
    assert_eq!(load(sample, &[]), Ok(Config::default()));
    let docs = include_str!("../../../docs/configuration.md");
    for (name, table) in &schema() {
        let keys: Vec<&String> = match table {
            Value::Table(table) => table.keys().collect(),
            Value::Array(list) => list[0].as_table().expect("a list of tables").keys().collect(),
            other => panic!("{name} is {other}"),
        };
        assert!(docs.contains(&format!("[{name}]")), "{name} is not in the documentation");
        for key in keys {
            assert!(
                sample.contains(&format!("{key} = ")) || sample.contains(&format!("{name}.{key}]")),
                "{name}.{key}"
            );
            assert!(docs.contains(&format!("`{key}`")), "{name}.{key} is not in the documentation");
        }
    }
    assert_eq!(load("", &[]), Ok(Config::default()));
}

#[test]
fn what_is_written_is_read() {
    let config = Config {
        hook: vec![Hook { name: "x".into(), command: vec!["/bin/true".into()], ..Hook::default() }],
        ..Config::default()
    };
    let text = toml::to_string(&config).expect("all of it can be written");
    assert_eq!(load(&text, &[]), Ok(config));
}

#[test]
fn unknown_keys_with_the_nearest() {
    let text = "[store]\nmax_byte = \"1GiB\"\n\n[htpp]\nlisten = []\n[[hook]]\nname = \"x\"\ncomand = []\n";
    assert_eq!(
        refused(text, &[]),
        [
            "p.toml:2: there is no key store.max_byte; did you mean max_bytes?",
            "p.toml:4: there is no key htpp; did you mean http?",
            "p.toml:8: there is no key hook.comand; did you mean command?",
        ]
    );
}

#[test]
fn all_problems_at_once() {
    let text = "[recorder]\nbudget = 0\nwithout = [\"nonsense\"]\n[http]\nlisten = [\"nowhere\"]\n[http.tls]\ncert = \"x\"\n\
                [[hook]]\nname = \"a b\"\n[otlp]\nendpoint = \"localhost:4317\"\n";
    let problems = refused(text, &[]);
    assert_eq!(problems.len(), 7, "{problems:#?}");
    assert!(problems.iter().any(|p| p.starts_with("p.toml:2: the budget")), "{problems:#?}");
}

/// Unknown keys, values of the wrong type, and values that contradict each other are each reported with their
/// own line, even where other tables have keys of the same names.
#[test]
fn problems_of_every_kind_at_once_with_their_lines() {
    let text = "[jsonl]\npath = \"/x\"\nkeep = \"five\"\n[store]\npath = \"\"\nmax_bytes = 5\nmax_age = 7\n\
                [[hook]]\nname = \"a\"\nurl = \"https://box\"\ntimeout = \"10s\"\n\
                [[hook]]\nname = \"b\"\nurl = \"box\"\ntimeout = 10\nconcurency = 1\n\
                [[hook]]\nname = \"a\"\nurl = \"https://box\"\n\
                [otlp]\ntimeout = \"10 parsecs\"\n[http]\nlisten = [\"127.0.0.1:1\",\n\"nowhere\"]\n\
                external_url = \"https://box/#/\"\n[http.tls]\ncert = \"x\"\n";
    let problems = refused(text, &[("PANICWATCH_RECORDER_BUDGET", "0"), ("PANICWATCH_LOG_LEVEL", "loud")]);
    let found: Vec<&str> =
        problems.iter().map(|problem| problem.split(": ").next().expect("a place")).collect();
    let lines = [3, 5, 6, 7, 14, 15, 16, 18, 21, 24, 25, 26].map(|line| format!("p.toml:{line}"));
    let expected: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(found[..12], expected, "{problems:#?}");
    let mut of_env = found[12..].to_vec();
    of_env.sort_unstable();
    assert_eq!(of_env, ["PANICWATCH_LOG_LEVEL", "PANICWATCH_RECORDER_BUDGET"], "{problems:#?}");
    for (n, part) in [(0, "jsonl.keep: "), (3, "store.max_age: "), (7, "two hooks"), (8, "parsecs")] {
        assert!(problems[n].contains(part), "{}", problems[n]);
    }
}

/// A hook that has no command because the key is misspelt is one problem, not two.
#[test]
fn a_problem_hides_what_follows_from_it() {
    assert_eq!(refused("[[hook]]\nname = \"x\"\ncomand = [\"x\"]\n", &[]).len(), 1);
    assert_eq!(refused("[http.tls]\ncert = 5\nkey = \"/k\"\n", &[]).len(), 1);
}

#[test]
fn what_is_no_toml_is_told_with_its_lines() {
    let problems = refused("[store]\nmax_bytes = \n[log]\nlevel = \"info\"\nx y\n", &[]);
    assert!(problems.len() >= 2 && problems[0].starts_with("p.toml:2"), "{problems:#?}");
    assert!(problems.iter().any(|problem| problem.starts_with("p.toml:5")), "{problems:#?}");
}

#[test]
fn wrong_types_and_no_toml() {
    let problems = refused("[store]\nmax_bytes = 5\n[log]\nlevel = \"loud\"\n", &[]);
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems.iter().any(|p| p.contains("info")), "{problems:#?}");
    let problems = refused("[store]\nmax_bytes = \n", &[]);
    assert!(problems[0].starts_with("p.toml:2"), "{problems:#?}");
}

#[test]
fn the_environment_wins() {
    let env = [
        ("PANICWATCH_STORE_MAX_BYTES", "5MiB"),
        ("PANICWATCH_HTTP_LISTEN", "127.0.0.1:1, [::1]:2"),
        ("PANICWATCH_HTTP_TLS_CERT", "/c"),
        ("PANICWATCH_HTTP_TLS_KEY", "/k"),
        ("PANICWATCH_OTLP_PROTOCOL", "http/protobuf"),
        ("PANICWATCH_RECORDER_BUDGET", "2"),
        ("PANICWATCH_JSONL_KEEP", "9"),
        ("PANICWATCH_WATCH_HOLD_NEW_BINARIES", "true"),
        ("PANICWATCH_HOME", "/tmp"),
        ("PANICWATCH_RECORDER_SLOTS", "64"),
        ("OTHER", "x"),
    ];
    let config = load("[store]\nmax_bytes = \"1GiB\"\n", &env).expect("all of it is known");
    assert_eq!(config.store.max_bytes, Bytes(5 << 20));
    assert_eq!(config.http.listen, ["127.0.0.1:1", "[::1]:2"]);
    assert_eq!((config.http.tls.cert.as_str(), config.http.tls.key.as_str()), ("/c", "/k"));
    assert_eq!(config.otlp.protocol, Protocol::HttpProtobuf);
    assert_eq!((config.recorder.budget, config.jsonl.keep), (OverheadBudget::Percent(2.0), 9));
    assert!(config.watch.hold_new_binaries);
}

#[test]
fn unknown_variables_of_a_table() {
    let problems = refused("", &[("PANICWATCH_STORE_MAXBYTES", "1"), ("PANICWATCH_JSONL_KEEP", "many")]);
    assert_eq!(
        problems,
        [
            "PANICWATCH_JSONL_KEEP: \"many\" is not a valid integer",
            "PANICWATCH_STORE_MAXBYTES: there is no key maxbytes in [store]; did you mean max_bytes?",
        ]
    );
}
