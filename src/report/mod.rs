//! Metrics as HTML and Markdown.
