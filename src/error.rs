//! The one error type.
//!
//! A message is a lowercase fragment that fits after "failed to": contexts are added outermost first,
//! so that `read \`ptb.txt\`: line 7: invalid UTF-8 at byte 112` reads as one sentence. What the user can
//! do about it goes into the hint, never into the message.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Whose turn it is after an error. Decides the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A fault of this program (exit code 1).
    Internal,
    /// The user's input: manifest, data, arguments (exit code 2).
    Input,
    /// The environment: disk, permissions, network, GPU (exit code 3).
    Environment,
    /// The user or the system asked to stop (exit code 130, or that of the signal).
    Interrupted,
}

impl Kind {
    /// The process's exit code: 1 ours, 2 the user's input, 3 the environment, 130 interrupted.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Input => 2,
            Self::Environment => 3,
            Self::Interrupted => 130,
        }
    }
}

/// What would help, for a caller whose settings offer a better way out than the hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A network or a proxy, or a file that is brought by hand.
    Network,
    /// Credentials, or a file that is brought by hand.
    Credentials,
    /// A higher limit of the size of a file.
    Limit,
    /// Another URL, checksum or commit: the server has another file, or no file.
    Reference,
}

/// An error with its kind, its chain of contexts and, where there is one, the way out.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: Kind,
    /// Innermost first; printed in reverse.
    messages: Vec<String>,
    hint: Option<String>,
    remedy: Option<Remedy>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// Other errors of the same work, which are reported after this one.
    others: Vec<Error>,
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the given kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            messages: vec![message.into()],
            hint: None,
            remedy: None,
            source: None,
            others: Vec::new(),
        }))
    }

    /// The user's input is at fault.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// The environment is at fault.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::new(Kind::Environment, message)
    }

    /// This program is at fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// The user asked to stop.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// Adds what can be done about it. The innermost hint wins: it knows most.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// States what would help.
    #[must_use]
    pub fn remedy(mut self, remedy: Remedy) -> Self {
        self.0.remedy = Some(remedy);
        self
    }

    /// Adds another way out to the one that is known.
    #[must_use]
    pub fn or_hint(mut self, hint: &str) -> Self {
        match &mut self.0.hint {
            Some(known) => {
                known.push_str("; ");
                known.push_str(hint);
            }
            none => *none = Some(hint.to_owned()),
        }
        self
    }

    /// Says instead what can be done about it, where the innermost hint does not fit what is being done.
    #[must_use]
    pub fn replace_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds what was being done.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.0.messages.push(context.into());
        self
    }

    /// Adds other errors of the same work. The kind, the text and the hint stay those of this one.
    #[must_use]
    pub fn beside(mut self, others: impl IntoIterator<Item = Self>) -> Self {
        self.0.others.extend(others);
        self
    }

    /// The other errors of the same work; [`Error::context`] is not added to them.
    #[must_use]
    pub fn others(&self) -> &[Self] {
        &self.0.others
    }

    /// Whose turn it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether the system refused to write or read: a right is missing, or the file system is read-only.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if matches!(
                kind,
                Some(std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem)
            ) {
                return true;
            }
            source = error.source();
        }
        false
    }

    /// What would help, where that was stated.
    #[must_use]
    pub fn stated_remedy(&self) -> Option<Remedy> {
        self.0.remedy
    }

    /// What can be done about it.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, message) in self.0.messages.iter().rev().enumerate() {
            if i > 0 {
                f.write_str(": ")?;
            }
            f.write_str(message)?;
        }
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

/// Adds a context to the error of a result.
pub trait Context<T> {
    /// Says what was being done; `kind` is kept where the error already has one.
    ///
    /// # Errors
    /// The error itself, with the context added.
    fn context(self, context: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for Result<T, Error> {
    fn context(self, context: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| e.context(context()))
    }
}

/// An I/O error is the environment's, but for a file that the user named and that is not there.
impl<T> Context<T> for std::io::Result<T> {
    fn context(self, context: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| {
            let kind = match e.kind() {
                std::io::ErrorKind::NotFound => Kind::Input,
                _ => Kind::Environment,
            };
            Error(Box::new(Inner {
                kind,
                messages: vec![context()],
                hint: None,
                remedy: None,
                source: Some(Arc::new(e)),
                others: Vec::new(),
            }))
        })
    }
}

/// Turns the error of a library into [`Error`], with a kind and a context.
pub trait Wrap<T> {
    /// Wraps the error: `kind`, then what was being done.
    ///
    /// # Errors
    /// The wrapped error.
    fn wrap(self, kind: Kind, context: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Wrap<T> for std::result::Result<T, E> {
    fn wrap(self, kind: Kind, context: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| {
            Error(Box::new(Inner {
                kind,
                messages: vec![context()],
                hint: None,
                remedy: None,
                source: Some(Arc::from(e.into())),
                others: Vec::new(),
            }))
        })
    }
}

/// Runs calls into a library that panics on some damaged input, and returns the panic's message. The last resort: what a
/// library is known not to check is checked before.
///
/// # Errors
/// The message of the panic.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    struct Guard(bool);
    impl Drop for Guard {
        fn drop(&mut self) {
            GUARDED.set(self.0);
        }
    }
    let guard = Guard(GUARDED.replace(true));
    let done = catch_unwind(AssertUnwindSafe(work));
    drop(guard);
    done.map_err(|panic| panic_text(&*panic).to_owned())
}

/// Whether a panic of this thread is caught by [`guarded`]: it is not a bug of ours, and is not reported.
#[must_use]
pub fn is_guarded() -> bool {
    GUARDED.get()
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What a panic said.
#[must_use]
pub fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_read_outermost_first_and_the_innermost_hint_wins() {
        let error = Error::input("invalid UTF-8 at byte 112")
            .hint("convert it")
            .context("line 7")
            .context("read `ptb.txt`")
            .hint("give up");
        assert_eq!(
            error.to_string(),
            "read `ptb.txt`: line 7: invalid UTF-8 at byte 112"
        );
        assert_eq!(error.hint_text(), Some("convert it"));
        assert_eq!(error.kind().exit_code(), 2);
    }

    #[test]
    fn errors_beside_an_error_keep_their_own_text_and_hint() {
        let error = Error::input("no row").beside([Error::environment("disk full").hint("free some")]);
        let error = error.context("stage `a`");
        assert_eq!(error.to_string(), "stage `a`: no row");
        assert_eq!((error.kind(), error.hint_text()), (Kind::Input, None));
        let others: Vec<_> = error
            .others()
            .iter()
            .map(|other| (other.to_string(), other.hint_text(), other.kind()))
            .collect();
        assert_eq!(
            others,
            [("disk full".to_owned(), Some("free some"), Kind::Environment)]
        );
    }

    #[test]
    fn io_error_keeps_its_cause() {
        let result = std::fs::read("/nonexistent/file").context(|| "read `x`".to_owned());
        let error = result.unwrap_err();
        assert!(error.to_string().starts_with("read `x`: No such file"));
        assert_eq!(error.kind(), Kind::Input);
    }

    #[test]
    fn guarded_panic_is_a_text_and_the_guard_ends_with_it() {
        assert_eq!(guarded(|| 3), Ok(3));
        assert!(!is_guarded());
        let caught = guarded(|| {
            assert!(guarded(|| ()).is_ok() && is_guarded());
            panic!("on purpose {}", 1)
        });
        assert_eq!(caught, Err::<(), _>("on purpose 1".to_owned()));
        assert!(!is_guarded());
    }
}
