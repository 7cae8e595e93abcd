//! The configuration through the program itself: exit codes, streams, real files.
//!
//! Only runs that open no socket; the effect of settings is tested elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory of its own for one test, with an empty configuration, so that none of the machine is read.
fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("olivia.toml"), "").unwrap();
    path
}

fn olivia(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_olivia")).current_dir(directory).env_clear().args(args).output().unwrap()
}

/// The exit code, standard output, standard error.
fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Demands exit code 2, nothing on standard output, and `hint` on standard error.
fn refused(output: &Output, hint: &str) {
    let (code, out, err) = outcome(output);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    assert!(err.starts_with("olivia: ") && err.contains(hint), "{err}");
}

#[test]
fn version_and_help_are_printed_whatever_the_file_says() {
    let home = directory("help");
    fs::write(home.join("olivia.toml"), "nonsense").unwrap();
    assert_eq!(
        outcome(&olivia(&home, &["--version"])),
        (Some(0), "olivia 0.1.0\n".to_owned(), String::new())
    );
    let (code, out, _) = outcome(&olivia(&home, &["-h"]));
    assert_eq!((code, out.as_str()), (Some(0), olivia::config::HELP));
}

#[test]
fn valid_configuration_is_reported_with_its_file() {
    let home = directory("fine");
    fs::write(home.join("olivia.toml"), olivia::config::DEFAULT_TEXT).unwrap();
    let (code, out, err) = outcome(&olivia(&home, &["--check-config"]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(
        out.starts_with("the configuration is fine (configuration read from olivia.toml; memory_max is "),
        "{out}"
    );
}

#[test]
fn the_printed_configuration_prints_itself_again() {
    let home = directory("print");
    let (code, first, _) =
        outcome(&olivia(&home, &["--print-config", "--port", "0", "--peer", "localhost:1"]));
    assert_eq!(code, Some(0));
    assert!(first.contains("\nlisten_port = 0\n") && first.contains("\nbase_node = false\n"), "{first}");
    fs::write(home.join("x.toml"), &first).unwrap();
    let (_, second, _) = outcome(&olivia(&home, &["--print-config", "--config", "x.toml"]));
    assert_eq!(first, second);
}

#[test]
fn error_in_the_file_exits_with_its_line_and_code_2() {
    let home = directory("mistake");
    fs::write(home.join("olivia.toml"), "\nlisten_prot = 1\n").unwrap();
    let hint = "olivia.toml:2: unknown key 'listen_prot' (did you mean 'listen_port'?)";
    refused(&olivia(&home, &["--check-config"]), hint);
    refused(&olivia(&home, &[]), hint);
}

#[test]
fn error_on_the_command_line_exits_with_code_2() {
    let home = directory("usage");
    refused(&olivia(&home, &["--prot", "1"]), "did you mean '--port'?");
    refused(&olivia(&home, &["--bind", "0.0.0.0"]), "open_without_password");
}

#[test]
fn files_that_are_no_configuration_get_distinct_errors() {
    let home = directory("files");
    fs::write(home.join("large.toml"), vec![b' '; olivia::config::FILE_BYTES_MAX + 1]).unwrap();
    fs::write(home.join("binary.toml"), b"\xff\x00").unwrap();
    refused(&olivia(&home, &["--config", "gone.toml"]), "does not exist");
    refused(&olivia(&home, &["--config", "."]), "is a directory");
    refused(&olivia(&home, &["--config", "large.toml"]), "is larger than");
    refused(&olivia(&home, &["--config", "binary.toml"]), "not UTF-8");
}

#[cfg(unix)]
#[test]
fn password_file_readable_by_others_logs_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let home = directory("mode");
    fs::write(home.join("olivia.toml"), "[security]\npassword_file = 'pw'\n").unwrap();
    fs::write(home.join("pw"), "hunter2\n").unwrap();
    for (mode, warned) in [(0o600, false), (0o640, true), (0o604, true)] {
        fs::set_permissions(home.join("pw"), fs::Permissions::from_mode(mode)).unwrap();
        let (code, _, err) = outcome(&olivia(&home, &["--check-config"]));
        assert_eq!((code, err.contains("chmod 600")), (Some(0), warned), "{err}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn printing_to_a_full_disk_fails_and_to_a_closed_pipe_does_not() {
    let home = directory("full");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_olivia"));
    command.current_dir(&home).env_clear().arg("--help");
    assert_eq!(command.stdout(full).status().unwrap().code(), Some(1));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(command.stdout(writer).status().unwrap().code(), Some(0));
}
