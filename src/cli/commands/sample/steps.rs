//! `mdlm sample --show-steps`: the first text while its tokens become visible, redrawn in place in a terminal, else a line a
//! step.

use std::time::{Duration, Instant};

use console::{Term, measure_text_width};

use super::printed::TokenSpelling;
use crate::cli::render::style::{FAINT, GOOD, PLAIN, Style};
use crate::cli::render::table::WIDTH;
use crate::cli::render::terminal::Terminal;
use mdlm::error::Result;
use mdlm::sample::UNSEEN;
use mdlm::stages::draw::DrawnStep;

/// How often the text is redrawn at most: 20 times a second.
const REDRAW: Duration = Duration::from_millis(50);
/// Stands for a column of a token that is still masked.
const MASKED: char = '░';
/// Tokens by which the width of a masked one is estimated, at most.
const MEASURED: u32 = 1000;
/// Columns of a masked token, at most.
const WIDEST_MASK: usize = 8;
/// Lines of a terminal that does not say how many it has.
const LINES: usize = 24;

/// How a token looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// It is masked.
    Masked,
    /// It is given, or was drawn before.
    Old,
    /// It was drawn since the text was drawn last.
    New,
}

impl Look {
    fn style(self) -> Style {
        match self {
            Self::Masked => FAINT,
            Self::Old => PLAIN,
            Self::New => GOOD,
        }
    }
}

/// Shows a text while it is drawn.
pub struct StepView<'a> {
    terminal: &'a Terminal,
    spelling: TokenSpelling<'a>,
    /// Whether a text ends where its first EOS is.
    ends_early: bool,
    /// Whether the text has ended while others go on.
    is_done: bool,
    /// Tokens of each window after the first that the window before it has drawn; 0 where there are no windows.
    kept: usize,
    /// The tokens of earlier windows.
    before: Vec<u32>,
    /// The tokens of the window as they were shown last.
    shown: Vec<u32>,
    /// Columns of a masked token.
    mask_width: usize,
    /// When the text was drawn last.
    drawn: Option<Instant>,
    /// Lines that it took then.
    lines: usize,
}

impl<'a> StepView<'a> {
    /// A view of the first text; `kept` and `ends_early` as in the fields.
    pub fn new(
        terminal: &'a Terminal,
        spelling: TokenSpelling<'a>,
        vocabulary: u32,
        kept: usize,
        ends_early: bool,
    ) -> Self {
        Self {
            terminal,
            spelling,
            ends_early,
            is_done: false,
            kept,
            before: Vec::new(),
            shown: Vec::new(),
            mask_width: mask_width(spelling, vocabulary),
            drawn: None,
            lines: 0,
        }
    }

    /// Shows a step. Returns whether standard output still has a reader.
    ///
    /// # Errors
    /// The tokenizer's decoder fails, or standard output cannot be written.
    pub fn step(&mut self, step: &DrawnStep<'_>, length: usize) -> Result<bool> {
        let row = &step.tokens[..length.min(step.tokens.len())];
        let is_later = step.window.is_some_and(|(window, _)| window > 0);
        let row = &row[if is_later { self.kept.min(row.len()) } else { 0 }..];
        let is_due = self.drawn.is_none_or(|then| then.elapsed() >= REDRAW);
        let is_live = self.terminal.is_output_live();
        if self.is_done || (is_live && !is_due && step.done < step.of) {
            return Ok(true);
        }
        let pieces = self.pieces(row)?;
        self.shown = row.to_vec();
        self.drawn = Some(Instant::now());
        let mut place = format!("step {}/{}", step.done, step.of);
        if let Some((window, windows)) = step.window {
            place = format!("window {}/{windows}, {place}", window + 1);
        }
        if !is_live {
            let text: String = pieces.into_iter().map(|(_, text)| on_one_line(&text)).collect();
            return self.terminal.output_while_read(&format!("{place}: {text}\n"));
        }
        let size = Term::stdout().size_checked();
        let (height, width) = size.map_or((LINES, WIDTH), |(height, width)| (height.into(), width.into()));
        let lines = in_view(laid_out(&pieces, width), height.saturating_sub(2).max(1));
        let place = self.terminal.paint_output(FAINT, &place);
        let mut frame = self.back();
        let shown = lines.iter().map(|line| self.painted(line));
        for line in std::iter::once(place).chain(shown) {
            frame += &line;
            // To the end of the line.
            frame += "\x1b[K\n";
        }
        frame += "\x1b[J";
        self.lines = 1 + lines.len();
        self.terminal.output_while_read(&frame)
    }

    /// Adds the tokens of a window that is drawn.
    pub fn window(&mut self, tokens: &[u32]) {
        self.before.extend_from_slice(tokens);
        self.shown.clear();
        self.is_done |= self.ends_early && tokens.last() == Some(&self.spelling.special.eos);
    }

    /// Takes the text away, in a terminal.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn clear(&mut self) -> Result<()> {
        if self.lines > 0 {
            let back = self.back();
            self.lines = 0;
            self.terminal.output(&format!("{back}\x1b[J"))?;
        }
        Ok(())
    }

    /// Moves to the beginning of what was drawn last.
    fn back(&self) -> String {
        match self.lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r"),
        }
    }

    /// The text in pieces of one look.
    fn pieces(&self, row: &[u32]) -> Result<Vec<(Look, String)>> {
        let special = self.spelling.special;
        let before = self.before.strip_prefix(&[special.bos]).unwrap_or(&self.before);
        let mut tokens: Vec<(Look, u32)> = before.iter().map(|&token| (Look::Old, token)).collect();
        for (l, &token) in row.iter().enumerate() {
            if self.before.is_empty() && l == 0 && token == special.bos {
                continue;
            }
            let look = if token == special.mask || token == UNSEEN {
                Look::Masked
            } else if self.shown.get(l).is_some_and(|&before| before != token) {
                Look::New
            } else {
                Look::Old
            };
            tokens.push((look, token));
        }
        let mut pieces = Vec::new();
        // A run of tokens that have no masked one between them is spelled as a whole, and cut where the look changes.
        for run in tokens.chunk_by(|a, b| (a.0 == Look::Masked) == (b.0 == Look::Masked)) {
            if run[0].0 == Look::Masked {
                pieces.push((
                    Look::Masked,
                    MASKED.to_string().repeat(run.len() * self.mask_width),
                ));
                continue;
            }
            let ids: Vec<u32> = run.iter().map(|&(_, token)| token).collect();
            let mut spelled = String::new();
            let mut end = 0;
            for part in run.chunk_by(|a, b| a.0 == b.0) {
                let start = end;
                end += part.len();
                let until = self.spelling.text(&ids[..end])?;
                let piece = match until.strip_prefix(&spelled) {
                    Some(piece) => piece.to_owned(),
                    None => self.spelling.text(&ids[start..end])?,
                };
                pieces.push((part[0].0, piece));
                spelled = until;
            }
        }
        // EOS ends a record, and begins another one only if more comes.
        while let Some((_, last)) = pieces.last_mut()
            && (last.is_empty() || last.ends_with('\n'))
        {
            last.truncate(last.trim_end_matches('\n').len());
            if last.is_empty() {
                pieces.pop();
            }
        }
        Ok(pieces)
    }

    fn painted(&self, line: &[(Look, char)]) -> String {
        let runs = line.chunk_by(|a, b| a.0 == b.0);
        runs.map(|run| {
            let text: String = run.iter().map(|(_, c)| c).collect();
            self.terminal.paint_output(run[0].0.style(), &text)
        })
        .collect()
    }
}

/// The mean width of the vocabulary's tokens.
fn mask_width(spelling: TokenSpelling<'_>, vocabulary: u32) -> usize {
    let stride = vocabulary.div_ceil(MEASURED).max(1) as usize;
    let widths: Vec<usize> = (0..vocabulary)
        .step_by(stride)
        .filter_map(|token| spelling.text(&[token]).ok())
        .map(|text| measure_text_width(&on_one_line(&text)))
        .filter(|width| *width > 0)
        .collect();
    let mean = widths.iter().sum::<usize>().div_ceil(widths.len().max(1));
    mean.clamp(1, WIDEST_MASK)
}

/// A text on one line, with control characters spelled out.
pub fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => line += " / ",
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

/// Pieces in lines of at most `width` columns, cut anywhere: a word that becomes visible does not move those after it.
fn laid_out(pieces: &[(Look, String)], width: usize) -> Vec<Vec<(Look, char)>> {
    let mut lines = vec![Vec::new()];
    let mut column = 0;
    for (look, text) in pieces {
        for part in text.split_inclusive('\n') {
            let (part, is_end) = match part.strip_suffix('\n') {
                Some(part) => (part, true),
                None => (part, false),
            };
            for c in on_one_line(part).chars() {
                let own = measure_text_width(c.encode_utf8(&mut [0; 4]));
                // The last column stays free: after it some terminals begin a line.
                if column + own >= width.max(2) {
                    lines.push(Vec::new());
                    column = 0;
                }
                column += own;
                if let Some(line) = lines.last_mut() {
                    line.push((*look, c));
                }
            }
            if is_end {
                // Without blank lines, as the text is printed.
                if let Some(line) = lines.last_mut().filter(|line| is_blank(line)) {
                    line.clear();
                } else {
                    lines.push(Vec::new());
                }
                column = 0;
            }
        }
    }
    lines
}

fn is_blank(line: &[(Look, char)]) -> bool {
    line.iter().all(|(_, c)| c.is_whitespace())
}

/// The lines that fit: the last ones of those with visible tokens, and those after them while there is room.
fn in_view(mut lines: Vec<Vec<(Look, char)>>, room: usize) -> Vec<Vec<(Look, char)>> {
    if lines.len() > room {
        let is_visible = |line: &Vec<(Look, char)>| line.iter().any(|(look, _)| *look != Look::Masked);
        let last = lines.iter().rposition(is_visible).unwrap_or(0);
        let first = (last + 1).saturating_sub(room).min(lines.len() - room);
        lines.drain(..first);
        lines.truncate(room);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Vec<(Look, char)>]) -> Vec<String> {
        let text = |line: &Vec<(Look, char)>| line.iter().map(|(_, c)| *c).collect();
        lines.iter().map(text).collect()
    }

    #[test]
    fn sample_steps_fit_the_width() {
        let pieces = [
            (Look::Old, "ab\ncd".to_owned()),
            (Look::Masked, "░░░░░░".to_owned()),
            (Look::New, "日本\x1b[2J".to_owned()),
        ];
        let lines = laid_out(&pieces, 6);
        assert_eq!(texts(&lines), ["ab", "cd░░░", "░░░日", "本\\u{", "1b}[2", "J"]);
        let blank = [(Look::Old, "\na\n \n\n".to_owned()), (Look::New, "b".to_owned())];
        assert_eq!(texts(&laid_out(&blank, 6)), ["a", "b"]);
        for width in 0..20 {
            for line in texts(&laid_out(&pieces, width)) {
                assert!(measure_text_width(&line) < width.max(4), "{width}: {line}");
            }
        }
    }

    #[test]
    fn sample_steps_follow_the_visible_text() {
        let line = |look| vec![(look, 'x')];
        let lines = |looks: &[Look]| looks.iter().map(|&look| line(look)).collect::<Vec<_>>();
        let (old, masked, new) = (Look::Old, Look::Masked, Look::New);
        assert_eq!(in_view(lines(&[old, masked]), 2).len(), 2);
        // From left to right: the end of what is visible.
        assert_eq!(in_view(lines(&[old, old, new, masked]), 2), lines(&[old, new]));
        // Masked lines fill up the room.
        assert_eq!(in_view(lines(&[new, masked, masked]), 2), lines(&[new, masked]));
        assert_eq!(
            in_view(lines(&[old, masked, masked, new]), 2),
            lines(&[masked, new])
        );
    }

    #[test]
    fn sample_lines_have_no_control_characters() {
        assert_eq!(on_one_line("a\nb\x1b[1m\t日"), "a / b\\u{1b}[1m\\t日");
    }
}
