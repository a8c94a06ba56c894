//! What a person sees while a pipeline runs: a bar per stage on a terminal, else plain lines with the time, which grow
//! rarer the longer a stage runs.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use console::{measure_text_width, truncate_str};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::style;
use super::table::{WIDTH, end};
use super::terminal::Terminal;
use mdlm::event::{Event, Progress, Sink};
use mdlm::numbers::{bytes, count, duration, rate};
use mdlm::stages::memory;
use mdlm::store::time;

/// How often a bar is redrawn at most.
const REDRAW: Duration = Duration::from_millis(100);
/// How often all bars together are redrawn in a second at most.
const REDRAWS: u8 = 20;
/// How often a stage writes a plain line at most, by how long it has run: a log of a minute shows that something happens,
/// one of a week is read to its end.
const PACES: [(Duration, Duration); 3] = [
    (Duration::from_secs(60), Duration::from_secs(5)),
    (Duration::from_secs(3600), Duration::from_secs(60)),
    (Duration::MAX, Duration::from_secs(600)),
];
/// The rate is that of this last stretch of time: long enough to be calm, short enough to follow a change.
const WINDOW: Duration = Duration::from_secs(15);

/// A terminal that may close: after the first error nothing more is drawn. The bars panic on an error, and a run is to end
/// with a checkpoint when its terminal closes.
#[derive(Debug)]
struct Forgiving<T> {
    term: T,
    is_gone: AtomicBool,
}

impl<T> Forgiving<T> {
    fn new(term: T) -> Self {
        Self {
            term,
            is_gone: AtomicBool::new(false),
        }
    }

    fn attempt(&self, draw: impl FnOnce(&T) -> io::Result<()>) {
        if !self.is_gone.load(Ordering::Relaxed) && draw(&self.term).is_err() {
            self.is_gone.store(true, Ordering::Relaxed);
        }
    }
}

impl<T: TermLike> TermLike for Forgiving<T> {
    fn width(&self) -> u16 {
        self.term.width()
    }

    fn height(&self) -> u16 {
        self.term.height()
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.attempt(|term| term.move_cursor_up(n));
        Ok(())
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.attempt(|term| term.move_cursor_down(n));
        Ok(())
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.attempt(|term| term.move_cursor_right(n));
        Ok(())
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.attempt(|term| term.move_cursor_left(n));
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.attempt(|term| term.write_line(text));
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.attempt(|term| term.write_str(text));
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.attempt(TermLike::clear_line);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.attempt(TermLike::flush);
        Ok(())
    }
}

/// Shows events to a person.
pub struct Display {
    terminal: Terminal,
    bars: MultiProgress,
    /// How often a plain line is written, where that is stated.
    pace: Option<Duration>,
    stages: Mutex<HashMap<String, StageProgress>>,
}

/// A stage at work.
struct StageProgress {
    bar: Option<ProgressBar>,
    drawn: Option<Instant>,
    began: Instant,
    /// When how much was done, over the last stretch of time.
    seen: VecDeque<(Instant, u64)>,
}

impl Display {
    /// A display on standard error.
    #[must_use]
    pub fn new(terminal: &Terminal) -> Self {
        let target = if terminal.is_live() && !terminal.quiet() {
            let term = Forgiving::new(console::Term::buffered_stderr());
            ProgressDrawTarget::term_like_with_hz(Box::new(term), REDRAWS)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            terminal: terminal.clone(),
            bars: MultiProgress::with_draw_target(target),
            pace: None,
            stages: Mutex::default(),
        }
    }

    /// Writes plain lines of progress so often, if that is stated.
    #[must_use]
    pub fn with_pace(mut self, pace: Option<Duration>) -> Self {
        self.pace = pace;
        self
    }

    /// Says a line above the bars, unless quiet. Without bars it begins with the time.
    pub fn line(&self, text: &str) {
        if self.terminal.is_live() {
            // `suspend` takes the bars away, lets the line be written, and draws them again.
            self.bars.suspend(|| self.terminal.say(text));
        } else {
            // To the second: `2026-01-31T09:05:07Z`.
            let now = format!("{:.0}", time::utc(SystemTime::now()));
            let now = self.terminal.paint(style::FAINT, &now);
            self.terminal.say(&format!("{now} {text}"));
        }
    }

    /// Says lines with [`Display::line`] in another thread.
    pub fn printer(self: &Arc<Self>) -> impl Fn(&str) + Send + use<> {
        let display = Arc::clone(self);
        move |text| display.line(text)
    }

    /// Takes all bars away: that of a stage that was interrupted too.
    pub fn clear(&self) {
        for (_, stage) in self.stages().drain() {
            stage.bar.iter().for_each(ProgressBar::finish_and_clear);
        }
    }

    /// A stage's name as it begins its lines.
    fn label(&self, stage: &str) -> String {
        self.terminal.paint(style::STRONG, stage)
    }

    fn stages(&self) -> MutexGuard<'_, HashMap<String, StageProgress>> {
        // A display that panicked once may show nonsense; it must not hide the first panic behind a second.
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, stage: &str, index: usize, of: usize, why: &str) {
        let place = self.terminal.paint(style::FAINT, &format!("[{index}/{of}]"));
        self.line(&format!("{place} {}: {why}", self.label(stage)));
        self.begin(stage);
    }

    /// Makes ready for the progress of something that is not a stage.
    pub fn begin(&self, stage: &str) {
        let bar = self.terminal.is_live().then(|| {
            // Styled before it is added: adding draws it.
            let bar = ProgressBar::no_length()
                .with_style(style(ONE_LINE))
                .with_prefix(stage.to_owned());
            let bar = self.bars.add(bar);
            bar.enable_steady_tick(REDRAW);
            bar
        });
        let now = Instant::now();
        let entry = StageProgress {
            bar,
            drawn: None,
            began: now,
            seen: VecDeque::new(),
        };
        self.stages().insert(stage.to_owned(), entry);
    }

    fn progress(&self, name: &str, progress: &Progress) {
        let mut stages = self.stages();
        let Some(stage) = stages.get_mut(name) else { return };
        let now = Instant::now();
        // More often than a plain line is written, so that the first one has a rate.
        if stage
            .seen
            .back()
            .is_none_or(|(then, _)| now.duration_since(*then) >= REDRAW)
        {
            stage.observe(now, progress.done);
        }
        let pace = match (&stage.bar, self.pace) {
            (Some(_), _) => REDRAW,
            (None, Some(stated)) => stated,
            (None, None) => pace(now.duration_since(stage.began)),
        };
        // Without a bar, nothing is said of what takes less than one pace.
        let last = match (&stage.bar, stage.drawn) {
            (Some(_), None) => None,
            (None, None) => Some(stage.began),
            (_, drawn) => drawn,
        };
        if last.is_some_and(|last| now.duration_since(last) < pace) {
            return;
        }
        stage.drawn = Some(now);
        let (amount, figures) = described(progress, stage.rate());
        let share = progress
            .total
            .filter(|total| *total > 0)
            .map(|total| progress.done as f64 / total as f64);
        if let Some(bar) = &stage.bar {
            let gauge = share.map_or_else(String::new, gauge);
            bar.set_style(style(if figures.is_empty() { ONE_LINE } else { TWO_LINES }));
            bar.set_prefix(fitted(name, &gauge, &amount, room()));
            bar.set_message(figures);
        } else {
            let share = share.map_or_else(String::new, |share| format!("{:.0}%, ", 100.0 * share));
            let figures = if figures.is_empty() {
                figures
            } else {
                format!(", {figures}")
            };
            self.line(&format!("{}: {share}{amount}{figures}", self.label(name)));
        }
    }

    /// Takes the stage's bar away.
    fn end(&self, stage: &str) {
        if let Some(bar) = self.stages().remove(stage).and_then(|stage| stage.bar) {
            bar.finish_and_clear();
        }
    }
}

impl StageProgress {
    fn observe(&mut self, now: Instant, done: u64) {
        while self.seen.len() > 1
            && self
                .seen
                .front()
                .is_some_and(|(then, _)| now.duration_since(*then) > WINDOW)
        {
            self.seen.pop_front();
        }
        // A new pass over something else counts from its own beginning.
        if self.seen.back().is_some_and(|(_, before)| *before > done) {
            self.seen.clear();
        }
        self.seen.push_back((now, done));
    }

    /// Units a second; what a resumed stage had done before it began does not count.
    fn rate(&self) -> Option<f64> {
        let ((then, before), (now, done)) = (self.seen.front()?, self.seen.back()?);
        let seconds = now.duration_since(*then).as_secs_f64();
        (seconds > 0.2 && done > before).then(|| (done - before) as f64 / seconds)
    }
}

/// How often a stage that has run for so long writes a plain line.
fn pace(run: Duration) -> Duration {
    let due = PACES.iter().find(|(until, _)| run < *until);
    due.map_or(Duration::MAX, |(_, pace)| *pace)
}

/// A bar without figures: its prefix is all of it.
const ONE_LINE: &str = "{spinner} {prefix}";
/// Figures below it; cut off at the terminal's width.
const TWO_LINES: &str = "{spinner} {prefix}\n  {wide_msg}";

fn style(template: &str) -> ProgressStyle {
    // Both templates are well formed, which a test holds.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// `[======>     ]  54% `.
fn gauge(share: f64) -> String {
    const CELLS: usize = 12;
    let share = share.clamp(0.0, 1.0);
    let full = (share * CELLS as f64) as usize;
    let tip = if full < CELLS { ">" } else { "" };
    format!(
        "[{:<CELLS$}] {:>3.0}% ",
        "=".repeat(full) + tip,
        (100.0 * share).floor()
    )
}

/// Columns of the terminal that a bar's first line may take: all but those of the spinner, and the last, after which some
/// terminals begin a line of their own.
fn room() -> usize {
    let width = console::Term::stderr()
        .size_checked()
        .map_or(WIDTH, |(_, columns)| usize::from(columns));
    width.saturating_sub(3)
}

/// A bar's first line in so many columns. A line that wraps would be left behind when the bar is drawn again: a long name
/// loses its middle, as those of a sweep's instances differ at their ends, after the gauge is gone.
fn fitted(name: &str, gauge: &str, amount: &str, room: usize) -> String {
    let length = measure_text_width;
    let gauge = if length(name) + 1 + length(gauge) + length(amount) <= room {
        gauge
    } else {
        ""
    };
    let left = room.saturating_sub(1 + length(gauge) + length(amount));
    let name = if length(name) <= left {
        name.to_owned()
    } else {
        let left = left.saturating_sub(1);
        let head = truncate_str(name, left / 3, "");
        format!("{head}…{}", end(name, left - left / 3))
    };
    truncate_str(&format!("{name} {gauge}{amount}"), room, "").into_owned()
}

/// How far and how fast, `1,200/2,000 steps, 12.3/s, 1m 05s left`, and the figures, `loss 3.21, memory 812 MB`.
fn described(progress: &Progress, per_second: Option<f64>) -> (String, String) {
    let in_bytes = progress.unit == "bytes";
    let amount = |number: u64| if in_bytes { bytes(number) } else { count(number) };
    let mut parts = Vec::new();
    parts.push(match (progress.total, in_bytes) {
        (Some(total), true) => format!("{} of {}", amount(progress.done), amount(total)),
        (Some(total), false) => format!("{}/{} {}", amount(progress.done), amount(total), progress.unit),
        (None, true) => amount(progress.done),
        (None, false) => format!("{} {}", amount(progress.done), progress.unit),
    });
    if let Some(per_second) = per_second {
        parts.push(if in_bytes {
            format!("{}/s", bytes(per_second as u64))
        } else {
            rate(per_second)
        });
        if let Some(total) = progress.total.filter(|total| *total > progress.done) {
            parts.push(format!(
                "{} left",
                duration((total - progress.done) as f64 / per_second)
            ));
        }
    }
    let mut figures: Vec<_> = progress
        .figures
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    // A stage that has more to say about its memory says it.
    if !progress.figures.iter().any(|(name, _)| *name == "memory") {
        figures.extend(memory::resident().map(|resident| format!("memory {}", bytes(resident))));
    }
    (parts.join(", "), figures.join(", "))
}

impl Sink for Display {
    fn emit(&self, stage: &str, event: Event) {
        if self.terminal.quiet() {
            return;
        }
        match event {
            Event::StageStarted { index, of, why } => self.start(stage, index, of, &why),
            Event::Progress(progress) => self.progress(stage, &progress),
            Event::Note(text) => self.line(&format!("{}: {text}", self.label(stage))),
            Event::Warning(text) => {
                let warning = self.terminal.paint(style::WARNING, "warning");
                self.line(&format!("{warning}: {}: {text}", self.label(stage)));
            }
            Event::StageFinished { seconds, .. } => {
                self.end(stage);
                let done = self.terminal.paint(style::GOOD, "done");
                self.line(&format!("{}: {done} in {}", self.label(stage), duration(seconds)));
            }
            // The error itself is printed once, at the end.
            Event::StageFailed { .. } => {
                self.end(stage);
                let failed = self.terminal.paint(style::ERROR, "failed");
                self.line(&format!("{}: {failed}", self.label(stage)));
            }
            // The summary says it.
            Event::StageCached => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_shows_amount_rate_and_time_left() {
        let text = |progress: &Progress, rate| {
            let (amount, figures) = described(progress, rate);
            // Memory is the process's own and stands last, where the system reports it.
            let figures = figures
                .split("memory ")
                .next()
                .unwrap()
                .trim_end_matches(", ")
                .to_owned();
            (amount, figures)
        };
        let pair = |amount: &str, figures: &str| (amount.to_owned(), figures.to_owned());
        let steps = Progress {
            done: 1200,
            total: Some(2000),
            unit: "steps",
            figures: vec![("loss", "3.21".to_owned())],
        };
        assert_eq!(
            text(&steps, Some(12.3)),
            pair("1,200/2,000 steps, 12.3/s, 1m 05s left", "loss 3.21")
        );
        let read = Progress {
            done: 12_000_000,
            total: Some(48_000_000),
            unit: "bytes",
            figures: vec![],
        };
        assert_eq!(
            text(&read, Some(4e6)),
            pair("12.0 MB of 48.0 MB, 4.00 MB/s, 9.0 s left", "")
        );
        let open = Progress {
            done: 5,
            total: None,
            unit: "records",
            figures: vec![],
        };
        assert_eq!(text(&open, None), pair("5 records", ""));
        assert_eq!(gauge(0.0), "[>           ]   0% ");
        assert_eq!(gauge(0.999), "[===========>]  99% ");
        assert_eq!(gauge(1.0), "[============] 100% ");
        for template in [ONE_LINE, TWO_LINES] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }

    /// A terminal that has closed: every write fails.
    #[derive(Debug, Default)]
    struct Closed {
        writes: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    }

    impl Closed {
        fn fail(&self) -> io::Result<()> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Err(io::Error::other("the terminal has closed"))
        }
    }

    impl TermLike for Closed {
        fn width(&self) -> u16 {
            80
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            self.fail()
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            self.fail()
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            self.fail()
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            self.fail()
        }

        fn write_line(&self, _: &str) -> io::Result<()> {
            self.fail()
        }

        fn write_str(&self, _: &str) -> io::Result<()> {
            self.fail()
        }

        fn clear_line(&self) -> io::Result<()> {
            self.fail()
        }

        fn flush(&self) -> io::Result<()> {
            self.fail()
        }
    }

    #[test]
    fn bars_outlive_their_terminal() {
        let closed = Closed::default();
        let writes = std::sync::Arc::clone(&closed.writes);
        let target = ProgressDrawTarget::term_like(Box::new(Forgiving::new(closed)));
        let bars = MultiProgress::with_draw_target(target);
        let bar = bars.add(ProgressBar::no_length().with_style(style(ONE_LINE)));
        bar.tick();
        let mut lines = 0;
        bars.suspend(|| lines += 1);
        bars.suspend(|| lines += 1);
        bar.finish_and_clear();
        assert_eq!(lines, 2);
        assert_eq!(writes.load(Ordering::Relaxed), 1);
    }

    /// A stage of a week writes some thousand lines.
    #[test]
    fn plain_lines_grow_rarer() {
        let mut at = Duration::ZERO;
        let mut lines = Vec::new();
        while at < Duration::from_secs(7 * 86_400) {
            at += pace(at);
            lines.push(at.as_secs());
        }
        assert_eq!(lines[..3], [5, 10, 15]);
        assert_eq!(lines[11..14], [60, 120, 180]);
        assert_eq!(lines[70..73], [3600, 4200, 4800]);
        assert!(lines.len() < 1_200, "{}", lines.len());
    }

    #[test]
    fn bar_fits_its_line() {
        let (gauge, amount) = ("[=>          ]  10% ", "4/40 steps, 22.0/s, 1.7 s left");
        let line = |name: &str, room| fitted(name, gauge, amount, room);
        assert_eq!(
            line("model", 77),
            "model [=>          ]  10% 4/40 steps, 22.0/s, 1.7 s left"
        );
        let instance = "model@learning_rate=0.001,seed=2";
        assert_eq!(line(instance, 77), format!("{instance} {amount}"));
        assert_eq!(line(instance, 50), format!("model@…0.001,seed=2 {amount}"));
        for room in 0..100 {
            assert!(line(instance, room).chars().count() <= room, "{room}");
        }
    }

    #[test]
    fn rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut stage = StageProgress {
            bar: None,
            drawn: None,
            began: start,
            seen: VecDeque::new(),
        };
        for second in 0..40 {
            // Resumed at 1000; twice as fast after twenty seconds.
            let done = 1000
                + if second < 20 {
                    second * 10
                } else {
                    200 + (second - 20) * 20
                };
            stage.observe(start + Duration::from_secs(second), done);
        }
        assert!((stage.rate().unwrap() - 20.0).abs() < 1e-9);
        stage.observe(start + Duration::from_secs(41), 3);
        assert_eq!(stage.rate(), None);
    }
}
