//! Tests the text of a made-up program that has every part of the page, hostile text included.

use expect_test::expect;

use super::*;
use crate::{incident::Addr, render::text::Style};

fn probe(name: &'static str, symbol: &str, price: &'static str) -> Probe {
    Probe {
        name,
        symbol: symbol.to_owned(),
        address: Some(Addr(0x43_a2dc)),
        offset: Some(0x1c),
        file_offset: Some(0x3_a2dc),
        instruction: Some("push %rbp".to_owned()),
        bytes: Some("55".to_owned()),
        price: Some(price),
        placed: true,
        reason: None,
        lost: None,
        why: Some("after the stack check: every hit is one call, arguments still in registers"),
    }
}

fn left_out() -> Probe {
    Probe {
        address: None,
        offset: None,
        file_offset: None,
        instruction: None,
        bytes: None,
        price: None,
        placed: false,
        reason: Some("the linker removed this function: nothing calls it".to_owned()),
        lost: Some("Goexit during a panic"),
        why: None,
        ..probe("goroutine exit", "runtime.Goexit", "emulated")
    }
}

fn section(name: &str, address: u64, size: u64) -> Section {
    Section {
        name: name.to_owned(),
        kind: "PROGBITS".to_owned(),
        flags: "AX".to_owned(),
        address: Addr(address),
        offset: 0x1000,
        size,
    }
}

fn facts() -> Inspection {
    let settings = [
        ("-compiler", "gc"),
        ("-ldflags", "-s -w"),
        ("\x1b[31mred", "\u{202e}x"),
        ("CGO_CFLAGS", ""),
        ("DefaultGODEBUG", "panicnil=1,tls3des=1"),
        ("vcs", "git"),
    ];
    Inspection {
        path: "/srv/shop (deleted)".to_owned(),
        file_size: 7_000_000,
        go_version: "go1.25-custom".to_owned(),
        watchable: true,
        cannot_be_watched: None,
        main_package: Some("example.com/shop/cmd/server".to_owned()),
        module: Some("example.com/shop".to_owned()),
        module_version: Some("(devel)".to_owned()),
        module_sum: None,
        module_replaced_by: None,
        dependencies: (0..14)
            .map(|i| Dependency {
                path: format!("example.com/dep{i}"),
                version: Some("v1.2.3".to_owned()),
                sum: None,
                replaced_by: (i == 0).then(|| Replacement {
                    path: "../fork".to_owned(),
                    version: None,
                    sum: None,
                }),
            })
            .collect(),
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        vcs: Some(Vcs {
            system: Some("git".to_owned()),
            revision: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            time: Some("2026-01-02T03:04:05Z".to_owned()),
            modified: Some(true),
        }),
        arch: Some("amd64".to_owned()),
        pie: true,
        cgo: Some(true),
        build_id: Some("00ff".to_owned()),
        go_build_id: Some("a/b/c/d".to_owned()),
        symbol_table: false,
        dwarf: true,
        pclntab: true,
        sections: vec![
            section(".text", 0x40_1000, 2 << 20),
            section(".debug_info", 0, 5000),
            section(".debug_line", 0, 100),
        ],
        text_start: Some(Addr(0x40_1000)),
        functions: Some(1887),
        inlined_calls: Some(6298),
        layout_source: Some("dwarf"),
        layout: Layout {
            source: Some("dwarf"),
            compared: 207,
            differences: vec![Difference {
                go_type: "runtime.g",
                field: "goid",
                table: Some(152),
                dwarf: Some(160),
            }],
            absent: Vec::new(),
            not_compared: None,
        },
        probes: vec![
            probe("panic raised", "runtime.gopanic", "emulated"),
            probe("process exit", "runtime.exit", "stepped"),
            left_out(),
        ],
        costs: vec!["no symbol table: nothing is lost".to_owned()],
        notes: vec!["position independent".to_owned()],
        process: Some(ProcessFacts {
            pid: 4711,
            deleted: true,
            load_bias: Some(Addr(0x5555_5515_4000)),
            text_start: Some(Addr(0x5555_5555_5000)),
            mapped: vec![
                MappedGo {
                    path: "/srv/plugin\x1b.so".to_owned(),
                    start: Addr(0x7f00_0000_0000),
                    go_version: Some("go1.25".to_owned()),
                    unreadable: None,
                },
                MappedGo {
                    path: "/lib/libc.so.6".to_owned(),
                    start: Addr(0x7f10_0000_0000),
                    go_version: None,
                    unreadable: None,
                },
            ],
        }),
    }
}

#[test]
fn the_page() {
    expect![[r#"
        /srv/shop (deleted)
        go1.25-custom, amd64, 6.7 MiB
        can be watched: 2 of 3 probes can be placed

        Process
          pid           4711
          file          deleted or replaced since the process started; the running code is
                        described
          loaded        text at 0x555555555000, load bias 0x555555154000
          also mapped   /srv/plugin\x1b.so at 0x7f0000000000, Go: go1.25
          also mapped   /lib/libc.so.6 at 0x7f1000000000, not Go

        Build
          main package  example.com/shop/cmd/server
          module        example.com/shop (devel)
          revision      git 0123456789ab 2026-01-02T03:04:05Z, with uncommitted changes
          settings      -compiler=gc  -ldflags="-s -w"  \x1b[31mred=\u{202e}x
          GODEBUG       panicnil=1, tls3des=1
          GNU build id  00ff
          Go build id   a/b/c/d
          dependency    example.com/dep0 v1.2.3 replaced by ../fork
          dependency    example.com/dep1 v1.2.3
          dependency    example.com/dep2 v1.2.3
          dependency    example.com/dep3 v1.2.3
          dependency    example.com/dep4 v1.2.3
          dependency    example.com/dep5 v1.2.3
          dependency    example.com/dep6 v1.2.3
          dependency    example.com/dep7 v1.2.3
          dependency    example.com/dep8 v1.2.3
          dependency    example.com/dep9 v1.2.3
          dependency    example.com/dep10 v1.2.3
          dependency    example.com/dep11 v1.2.3
                        … and 2 more (--format json has them all)

        In the file
          pclntab       1887 functions from 0x401000
          inlined calls 6298
          symbol table  no
          debug info    yes
          struct layout the binary's debug information; table and debug information differ in 1 of
                        207 offsets: runtime.g.goid
          linked        position independent, with C code (cgo)

        What is missing, and the consequences
          - no symbol table: nothing is lost

        What the build settings mean for reports
          - position independent

        Probes: 1 emulated (cheap), 1 single-stepped (expensive)
          panic raised          emulated   runtime.gopanic+0x1c           0x43a2dc push %rbp
          process exit          stepped    runtime.exit+0x1c              0x43a2dc push %rbp
          goroutine exit        not placed runtime.Goexit: the linker removed this function:
                                nothing calls it
                                lost: Goexit during a panic

        Sections
          .text                     0x401000      2.0 MiB     AX    PROGBITS
          .debug_… (2 sections)                   5.0 KiB
    "#]]
    .assert_eq(&text(&facts(), &Style::new(false, 90)));
}

#[test]
fn the_page_of_what_cannot_be_watched() {
    let facts = Inspection {
        watchable: false,
        cannot_be_watched: Some("unsupported Go release: go1.20.5".to_owned()),
        probes: Vec::new(),
        sections: Vec::new(),
        pclntab: false,
        functions: None,
        inlined_calls: None,
        text_start: None,
        cgo: None,
        layout_source: None,
        layout: Layout {
            source: None,
            compared: 0,
            differences: Vec::new(),
            absent: Vec::new(),
            not_compared: Some("no debug information".to_owned()),
        },
        process: None,
        dependencies: Vec::new(),
        ..facts()
    };
    expect![[r#"
        /srv/shop (deleted)
        go1.25-custom, amd64, 6.7 MiB
        cannot be watched: unsupported Go release: go1.20.5

        Build
          main package  example.com/shop/cmd/server
          module        example.com/shop (devel)
          revision      git 0123456789ab 2026-01-02T03:04:05Z, with uncommitted changes
          settings      -compiler=gc  -ldflags="-s -w"  \x1b[31mred=\u{202e}x
          GODEBUG       panicnil=1, tls3des=1
          GNU build id  00ff
          Go build id   a/b/c/d

        In the file
          pclntab       not read
          inlined calls not counted
          symbol table  no
          debug info    yes
          struct layout unknown, not compared
          linked        position independent

        What is missing, and the consequences
          - no symbol table: nothing is lost

        What the build settings mean for reports
          - position independent
    "#]]
    .assert_eq(&text(&facts, &Style::new(false, 90)));
}

#[test]
fn the_page_of_a_dry_run() {
    let probes = facts().probes;
    expect![[r#"
        /srv/\x07shop: go1.24, 2 of 3 probes can be placed: 1 emulated (cheap), 1 single-stepped
          (expensive)
          panic raised          emulated   runtime.gopanic+0x1c           0x43a2dc push %rbp
                                           file offset 0x3a2dc: after the stack check: every hit
                                           is one call, arguments still in registers
          process exit          stepped    runtime.exit+0x1c              0x43a2dc push %rbp
                                           file offset 0x3a2dc: after the stack check: every hit
                                           is one call, arguments still in registers
          goroutine exit        not placed runtime.Goexit: the linker removed this function:
                                nothing calls it
                                lost: Goexit during a panic
    "#]]
    .assert_eq(&plan("/srv/\x07shop", "go1.24", &probes, &Style::new(false, 90)));
}

#[test]
fn json_keeps_order_and_repeats_no_name() {
    let mut facts = facts();
    facts.settings.push(("-compiler".to_owned(), "other".to_owned()));
    let text = json(&facts).expect("JSON");
    let at = |name: &str| text.find(name).unwrap_or_else(|| panic!("{name} in {text}"));
    assert!(at("\"-compiler\":\"gc\"") < at("\"-ldflags\""), "{text}");
    assert!(!text.contains("other"), "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["text_start"], "0x401000");
    assert_eq!(value["probes"][0]["address"], "0x43a2dc");
    assert_eq!(value["layout"]["differences"][0]["struct"], "runtime.g");
}

#[test]
fn colours_are_asked_for() {
    assert!(!text(&facts(), &Style::new(false, 90)).contains('\x1b'));
    assert!(text(&facts(), &Style::new(true, 90)).contains("\x1b[1m/srv/shop (deleted)\x1b[0m"));
}
