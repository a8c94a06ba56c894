//! What the integration tests share.

use assert_cmd::Command;

/// The program, without the caller's settings that would change what it prints.
pub fn mdlm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mdlm"));
    command
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("RUST_BACKTRACE")
        .env("COLUMNS", "80");
    command
}

/// What a finished command did: its exit code, standard output and standard error, as one text for a snapshot.
pub fn transcript(command: &mut Command) -> String {
    let output = command.output().expect("start mdlm");
    let code = output
        .status
        .code()
        .map_or("signal".to_owned(), |code| code.to_string());
    format!(
        "exit {code}\n--- stdout\n{}--- stderr\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
