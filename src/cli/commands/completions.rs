//! `mdlm completions`: a completion script for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::commands::Cli;
use crate::cli::render::terminal::Terminal;
use mdlm::error::Result;

/// What `mdlm completions --help` says first.
pub const LONG_ABOUT: &str = "\
    Print a completion script for a shell.\n\n\
    Put it where the shell looks for such scripts:\n\n\
    bash: mdlm completions bash > ~/.local/share/bash-completion/completions/mdlm\nzsh:  mdlm \
    completions zsh > \"${fpath[1]}/_mdlm\"\nfish: mdlm completions fish > \
    ~/.config/fish/completions/mdlm.fish";

/// Arguments of `mdlm completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Prints the script to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mdlm", &mut script);
    terminal.output(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
