//! Reading tables of TOML: every key is known, every value is what it should be, or the complaint names line, key, value and
//! remedy.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ScenarioError;
use super::settings::Set;
use crate::units::{self, Wanted};

/// How alike a misspelt key is to the one that was meant, by Jaro and Winkler's measure: `duraton` and `duration` are .97.
const ALIKE: f64 = 0.8;

/// A file: its name and its text, in which byte offsets are lines.
#[derive(Clone, Copy)]
pub(super) struct Source<'t> {
    pub(super) origin: &'t str,
    pub(super) text: &'t [u8],
}

/// A table of the file.
#[derive(Clone, Copy)]
pub(super) struct Fields<'t> {
    source: Source<'t>,
    table: &'t DeTable<'t>,
    /// As one would name it: `[link]`, `[[phase]]`.
    pub(super) place: &'static str,
    /// Where it begins.
    pub(super) line: usize,
}

/// A key with its value.
#[derive(Clone, Copy)]
pub(super) struct Field<'t> {
    source: Source<'t>,
    key: &'t str,
    value: &'t Spanned<DeValue<'t>>,
    /// Where the value is.
    pub(super) line: usize,
}

impl<'t> Source<'t> {
    pub(super) fn line(&self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or(self.text);
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    pub(super) fn wrong(&self, line: usize, message: impl Into<String>) -> ScenarioError {
        // Parts of the file are in it, and it goes to a terminal.
        let message = message.into().chars().map(shown).collect();
        ScenarioError::Invalid { origin: self.origin.to_owned(), line, message }
    }

    /// A table, all of whose keys are among `known`.
    pub(super) fn fields(
        self,
        table: &'t DeTable<'t>,
        line: usize,
        place: &'static str,
        known: &[&str],
    ) -> Result<Fields<'t>, ScenarioError> {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let line = self.line(key.span().start);
                return Err(self.wrong(
                    line,
                    format!("unknown key `{name}` in {place}{}", nearest(name, known)),
                ));
            }
        }
        Ok(Fields { source: self, table, place, line })
    }
}

impl<'t> Fields<'t> {
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'t>> {
        let value = self.table.get(key)?;
        let line = self.source.line(value.span().start);
        Some(Field { source: self.source, key, value, line })
    }

    /// A field that must be there.
    pub(super) fn need(&self, key: &'static str, remedy: &str) -> Result<Field<'t>, ScenarioError> {
        self.get(key).ok_or_else(|| self.wrong(format!("{} needs {key}: {remedy}", self.place)))
    }

    pub(super) fn wrong(&self, message: impl Into<String>) -> ScenarioError {
        self.source.wrong(self.line, message)
    }

    /// The value of a key by one of the functions below, if the key is there.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        read: impl Fn(&Field<'t>) -> Result<T, ScenarioError>,
    ) -> Result<Option<T>, ScenarioError> {
        self.get(key).map(|field| read(&field)).transpose()
    }

    /// The same with its line.
    pub(super) fn set<T>(
        &self,
        key: &'static str,
        read: impl Fn(&Field<'t>) -> Result<T, ScenarioError>,
    ) -> Result<Option<Set<T>>, ScenarioError> {
        self.read(key, |field| Ok(Set { value: read(field)?, line: field.line }))
    }

    /// The tables of `[[key]]`; none where there is no such key.
    pub(super) fn tables(
        &self,
        key: &'static str,
        place: &'static str,
        known: &[&str],
    ) -> Result<Vec<Fields<'t>>, ScenarioError> {
        let Some(field) = self.get(key) else { return Ok(Vec::new()) };
        let DeValue::Array(items) = field.value.get_ref() else {
            return Err(field.wrong(&format!("must be tables: write {place}")));
        };
        let read = |item: &'t Spanned<DeValue<'t>>| match item.get_ref() {
            DeValue::Table(table) => {
                self.source.fields(table, self.source.line(item.span().start), place, known)
            }
            _ => Err(field.wrong(&format!("must be tables: write {place}"))),
        };
        items.iter().map(read).collect()
    }
}

impl<'t> Field<'t> {
    /// A complaint about the value.
    pub(super) fn wrong(&self, reason: &str) -> ScenarioError {
        let written = self.source.text.get(self.value.span()).unwrap_or_default();
        // As it was written, cut where it is long.
        let written: String = String::from_utf8_lossy(written).chars().take(40).collect();
        self.source.wrong(self.line, format!("{} = {written}: {reason}", self.key))
    }

    pub(super) fn text(&self) -> Result<&'t str, ScenarioError> {
        match self.value.get_ref() {
            DeValue::String(text) => Ok(text),
            _ => Err(self.wrong("must be a text in quotes")),
        }
    }

    /// A text that is shown to people, on a terminal, in a table or on a page.
    pub(super) fn plain(&self) -> Result<&'t str, ScenarioError> {
        let text = self.text()?;
        match text.chars().find(|c| c.is_control()) {
            Some(control) => {
                let code = u32::from(control);
                Err(self.wrong(&format!("has the control character U+{code:04X}; leave it out")))
            }
            None => Ok(text),
        }
    }

    pub(super) fn duration(&self) -> Result<Duration, ScenarioError> {
        self.unit(units::duration)
    }

    pub(super) fn bit_rate(&self) -> Result<u64, ScenarioError> {
        self.unit(units::bit_rate)
    }

    /// A share, as a text or as a number.
    pub(super) fn share(&self) -> Result<f64, ScenarioError> {
        match self.number() {
            Some(number) => {
                units::share(&number.to_string()).map_err(|wanted| self.wrong(&wanted.to_string()))
            }
            None => self.unit(units::share),
        }
    }

    /// A number of packets, not always whole.
    pub(super) fn packets(&self) -> Result<f64, ScenarioError> {
        self.number().ok_or_else(|| self.wrong("must be a number of packets"))
    }

    /// A whole number from `least` on.
    pub(super) fn whole(&self, least: u64) -> Result<u64, ScenarioError> {
        let whole = match self.value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            _ => None,
        };
        whole
            .filter(|whole| *whole >= least)
            .ok_or_else(|| self.wrong(&format!("must be a whole number from {least} on")))
    }

    /// Names in a list.
    pub(super) fn names(&self) -> Result<Vec<&'t str>, ScenarioError> {
        let wrong = || self.wrong("must be a list of names, such as [\"tunnel\"]");
        let DeValue::Array(items) = self.value.get_ref() else { return Err(wrong()) };
        let name = |item: &'t Spanned<DeValue<'t>>| match item.get_ref() {
            DeValue::String(name) => Ok(name.as_ref()),
            _ => Err(wrong()),
        };
        items.iter().map(name).collect()
    }

    /// A table in place of a value.
    pub(super) fn table(
        &self,
        place: &'static str,
        known: &[&str],
    ) -> Result<Fields<'t>, ScenarioError> {
        match self.value.get_ref() {
            DeValue::Table(table) => self.source.fields(table, self.line, place, known),
            _ => Err(self.wrong(&format!("must be a table: write {place}"))),
        }
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Table(_))
    }

    fn unit<T>(&self, read: impl Fn(&str) -> Result<T, Wanted>) -> Result<T, ScenarioError> {
        let read = |text: &str| read(text).map_err(|wanted| self.wrong(&wanted.to_string()));
        match self.value.get_ref() {
            DeValue::String(text) => read(text),
            // Told what a text should be.
            _ => read(""),
        }
    }

    fn number(&self) -> Option<f64> {
        match self.value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        }
    }
}

/// A character as it may be shown to a terminal.
fn shown(c: char) -> char {
    if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }
}

/// The end of a complaint about an unknown name: the nearest known one, or all of them.
pub(super) fn nearest(name: &str, known: &[&str]) -> String {
    let likeness = |candidate: &&str| strsim::jaro_winkler(name, candidate);
    let meant = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match meant.filter(|meant| likeness(meant) >= ALIKE) {
        Some(meant) => format!("; did you mean `{meant}`?"),
        None => format!("; known are {}", known.join(", ")),
    }
}
