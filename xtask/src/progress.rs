//! What long steps say while they run, and how long each took.
//!
//! In: phases as they begin and end. Out: a spinner on a terminal, plain lines elsewhere, and a table of durations.

use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// The phases of one command.
pub struct Progress {
    phases: Vec<(String, Duration)>,
    started: Instant,
}

impl Progress {
    pub fn new() -> Self {
        Self { phases: Vec::new(), started: Instant::now() }
    }

    /// Runs `work` as a named phase. `note` lets it say what it is at.
    ///
    /// # Errors
    /// Those of `work`, with the phase's name in front.
    pub fn phase<T>(&mut self, name: &str, work: impl FnOnce(&Note) -> Result<T>) -> Result<T> {
        let note = Note::new(name);
        let started = Instant::now();
        let outcome = work(&note);
        let took = started.elapsed();
        note.finish(name, took, outcome.is_ok());
        self.phases.push((name.to_owned(), took));
        outcome.map_err(|e| e.context(format!("{name} failed")))
    }

    /// Prints the table of phases.
    pub fn summary(&self) {
        eprintln!("\n{:<28} {:>9}", "phase", "seconds");
        for (name, took) in &self.phases {
            eprintln!("{name:<28} {:>9.2}", took.as_secs_f64());
        }
        eprintln!("{:<28} {:>9.2}", "all", self.started.elapsed().as_secs_f64());
    }
}

/// The line a running phase shows.
pub struct Note {
    bar: Option<ProgressBar>,
    name: String,
}

impl Note {
    fn new(name: &str) -> Self {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bar = terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:<24} {elapsed:>4} {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            eprintln!("  {name} …");
        }
        Self { bar, name: name.to_owned() }
    }

    /// Says what the phase is doing right now.
    pub fn say(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => eprintln!("    {}: {what}", self.name),
        }
    }

    /// Gives the terminal to a child that prints by itself.
    pub fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(work),
            None => work(),
        }
    }

    fn finish(&self, name: &str, took: Duration, ok: bool) {
        let mark = if ok { "✓" } else { "✗" };
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{mark} {name:<26} {:>7.2} s", took.as_secs_f64());
    }
}
