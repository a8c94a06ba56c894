//! `mdlm completions`: a completion script for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Terminal};
use crate::error::Result;

/// Arguments of `mdlm completions`.
#[derive(Debug, clap::Args)]
#[command(long_about = "Print a completion script for a shell.\n\n\
        Put it where the shell looks for such scripts:\n\n\
        bash: mdlm completions bash > ~/.local/share/bash-completion/completions/mdlm\n\
        zsh:  mdlm completions zsh > \"${fpath[1]}/_mdlm\"\n\
        fish: mdlm completions fish > ~/.config/fish/completions/mdlm.fish")]
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
