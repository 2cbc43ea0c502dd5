//! Helper processes of the panicwatch command: which files they hold, which signals they ignore, when they
//! end.

use std::{
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use panicwatch::helper::{Kind, spawn};

const PANICWATCH: &str = env!("CARGO_BIN_EXE_panicwatch");

fn read(pid: u32, what: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{what}")).expect("the helper runs")
}

#[test]
fn a_helper_has_its_own_session_and_holds_nothing_of_the_user_s() {
    let (mut child, socket) = spawn::start(Path::new(PANICWATCH), Kind::Probes).expect("it starts");
    let pid = child.pid();
    assert_eq!(read(pid, "cmdline"), "panicwatch: probes\0");
    assert_eq!(read(pid, "comm"), "pw: probes\n");
    let stat = read(pid, "stat");
    let after_name: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    assert_eq!((after_name[2], after_name[3]), (&*pid.to_string(), &*pid.to_string()), "group and session");
    let mut held: Vec<PathBuf> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .map(|fd| fs::read_link(fd.expect("a descriptor").path()).expect("a link"))
        .collect();
    held.sort();
    let is_socket = held.pop().is_some_and(|path| path.to_string_lossy().starts_with("socket:"));
    assert!(is_socket && held == vec![PathBuf::from("/dev/null"); 3], "{held:?}");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).expect("a folder"), Path::new("/"));
    drop(socket);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn signals_of_a_terminal_or_a_service_manager_do_not_end_it() {
    let (mut child, socket) = spawn::start(Path::new(PANICWATCH), Kind::Probes).expect("it starts");
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE, libc::SIGTSTP] {
        // SAFETY: sends a signal to the child, which has not been waited for.
        assert_eq!(unsafe { libc::kill(child.pid() as i32, signal) }, 0);
    }
    socket.send(b"still there?", &[std::io::stdin().as_fd()]).expect("it takes messages");
    assert!(!child.has_ended());
    assert!(!read(child.pid(), "stat").contains(") T "), "stopped");
    drop(socket);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_program_that_would_not_become_a_helper_is_not_started_again() {
    let error = spawn(Kind::Probes).expect_err("this is a test program");
    assert!(error.to_string().contains("helper::dispatch"), "{error}");
}

#[test]
fn the_title_alone_makes_no_helper() {
    use std::os::unix::process::CommandExt as _;
    let output = Command::new(PANICWATCH).arg0("panicwatch: probes").output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Usage"), "{output:?}");
}

#[test]
fn an_executable_that_is_no_panicwatch_is_an_error() {
    let begun = Instant::now();
    let error = spawn::start(Path::new("/bin/true"), Kind::Probes).expect_err("it ends at once");
    assert!(error.to_string().contains("did not start: it exited at once"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(25), "its end is seen, not waited out");
}
