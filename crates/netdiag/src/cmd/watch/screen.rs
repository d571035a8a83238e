//! The table on a terminal.
//!
//! Invariant: what is narrow loses columns from the right, the most telling last to go.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netdiag_hints::bus::Update;
use netdiag_pacer::State;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row as Cells, Table as Grid, TableState};

use super::table::{HISTORY, Row, Table, one_line};
use crate::terminal::WholeScreen;

/// How often it is drawn.
const FRAME: Duration = Duration::from_millis(250);

/// Eighths of a line's height, for rates.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Seconds that one character of the small chart stands for.
const EACH: usize = 3;

/// Shows the table until it is over or somebody presses a key that ends it.
pub(super) fn show(
    hints: &Receiver<Update>,
    mut table: Table,
    is_over: impl Fn() -> bool,
) -> anyhow::Result<()> {
    // Takes care of panics, too.
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let whole = WholeScreen::take();
    let colors = std::env::var_os("NO_COLOR").is_none();
    let mut view =
        View { state: TableState::default().with_selected(0), colors, told: String::new() };
    let shown = (|| {
        let mut second = Instant::now();
        while !is_over() {
            let next = Instant::now() + FRAME;
            loop {
                let left = next.saturating_duration_since(Instant::now());
                match hints.recv_timeout(left.min(FRAME / 5)) {
                    Ok(update) => table.take(update, Instant::now()),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                if view.keys(table.rows().len())? {
                    return Ok(());
                }
                if Instant::now() >= next {
                    break;
                }
            }
            while second + Duration::from_secs(1) <= Instant::now() {
                second += Duration::from_secs(1);
                table.second(Instant::now());
            }
            view.told = whole.last_line();
            terminal.draw(|frame| view.draw(frame, &table, Instant::now()))?;
        }
        Ok::<_, io::Error>(())
    })();
    ratatui::restore();
    shown.context("cannot draw on the terminal")
}

struct View {
    state: TableState,
    colors: bool,
    /// The last log line.
    told: String,
}

impl View {
    /// Heeds the keys that were pressed; whether one of them ends it.
    fn keys(&mut self, rows: usize) -> io::Result<bool> {
        while event::poll(Duration::ZERO)? {
            let Event::Key(key) = event::read()? else { continue };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            let selected = self.state.selected().unwrap_or(0);
            let to = match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
                // Raw terminals send no signal for it.
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    return Ok(true);
                }
                KeyCode::Down | KeyCode::Char('j') => selected.saturating_add(1),
                KeyCode::Up | KeyCode::Char('k') => selected.saturating_sub(1),
                KeyCode::PageDown => selected.saturating_add(20),
                KeyCode::PageUp => selected.saturating_sub(20),
                KeyCode::Home => 0,
                KeyCode::End => usize::MAX,
                _ => continue,
            };
            self.state.select(Some(to.min(rows.saturating_sub(1))));
        }
        Ok(false)
    }

    fn draw(&mut self, frame: &mut Frame<'_>, table: &Table, now: Instant) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
                .areas(frame.area());
        frame.render_widget(summary(table, now), head);
        if table.rows().len() == 0 {
            frame.render_widget(
                Line::from("no hint yet; nodes speak with `netdiag up --bus URL`"),
                body,
            );
        } else {
            self.grid(frame, body, table, now);
        }
        let foot_line = format!("q ends  ↑ ↓ PgUp PgDn move  {}", one_line(&self.told));
        frame.render_widget(Line::from(foot_line.trim_end().to_owned()).dim(), foot);
    }

    fn grid(&mut self, frame: &mut Frame<'_>, area: Rect, table: &Table, now: Instant) {
        let longest = |of: fn(&Row) -> &str, least: usize, most: usize| {
            let lengths = table.rows().map(|row| of(row).chars().count());
            lengths.max().unwrap_or(0).clamp(least, most) as u16
        };
        let node = longest(|row| row.message.node.as_str(), 4, 24);
        let scope = longest(|row| &row.message.hint.scope, 5, 30);
        let columns = [
            ("NODE", node, true),
            ("SCOPE", scope, table.has_scopes),
            ("STATE", 11, true),
            ("TOK/S", 7, true),
            ("LAST MINUTE", (HISTORY / EACH) as u16, area.width >= 80),
            ("HEALTH", 6, area.width >= 60),
            ("STREAMS", 7, area.width >= 70),
            ("AGE", 6, area.width >= 90),
            ("WHY", u16::MAX, area.width >= 100),
        ];
        let shown: Vec<bool> = columns.iter().map(|(_, _, is_shown)| *is_shown).collect();
        let keep = |cells: Vec<Cell<'static>>| -> Cells<'static> {
            Cells::new(
                cells.into_iter().zip(&shown).filter(|(_, shown)| **shown).map(|(cell, _)| cell),
            )
        };
        let widths = columns.iter().filter(|(_, _, is_shown)| *is_shown).map(|(_, width, _)| {
            if *width == u16::MAX { Constraint::Fill(1) } else { Constraint::Length(*width) }
        });
        let titles = columns.iter().map(|(title, _, _)| Cell::from(*title)).collect();
        let rows = table.rows().map(|row| keep(self.cells(row, now)));
        let grid = Grid::new(rows, widths)
            .header(keep(titles).style(Style::new().bold()))
            .column_spacing(2)
            .row_highlight_style(Style::new().reversed());
        let selected = self.state.selected().unwrap_or(0).min(table.rows().len() - 1);
        self.state.select(Some(selected));
        frame.render_stateful_widget(grid, area, &mut self.state);
    }

    fn cells(&self, row: &Row, now: Instant) -> Vec<Cell<'static>> {
        let (message, hint) = (&row.message, &row.message.hint);
        let lapsed = row.lapsed(now);
        let color = |color: Color| match self.colors {
            true => Style::new().fg(color),
            false => Style::new(),
        };
        let state = match (lapsed, hint.hold) {
            (Some(_), _) => Span::styled("gone", color(Color::DarkGray)),
            (None, true) => Span::styled("held", color(Color::Red)),
            (None, false) => {
                let style = match hint.state {
                    State::Clear => color(Color::Green),
                    State::Constrained | State::Reader => color(Color::Yellow),
                    State::Stalled => color(Color::Red),
                    State::Idle | State::Stale => color(Color::DarkGray),
                };
                Span::styled(hint.state.as_str(), style)
            }
        };
        let rate = match lapsed {
            None => format!("{:>7.1}", hint.current_tps.get()),
            Some(_) => format!("{:>7}", "–"),
        };
        let age = match lapsed {
            None => hint.age_seconds,
            Some(lapsed) => message.ttl_seconds + lapsed.as_secs_f64(),
        };
        let streams = message.streams.map_or("–".to_owned(), |streams| streams.to_string());
        let why = match lapsed {
            None => one_line(&hint.reason),
            Some(_) => "nothing heard of it any more".to_owned(),
        };
        vec![
            Cell::from(message.node.to_string()),
            Cell::from(one_line(&hint.scope)),
            Cell::from(state),
            Cell::from(rate),
            Cell::from(chart(row)),
            Cell::from(format!("{:>6.2}", hint.health)),
            Cell::from(format!("{streams:>7}")),
            Cell::from(format!("{age:>4.1} s")),
            Cell::from(why),
        ]
    }
}

fn summary(table: &Table, now: Instant) -> Line<'static> {
    let rows = table.rows().len();
    let gone = table.rows().filter(|row| row.lapsed(now).is_some()).count();
    let what = match (table.has_scopes, rows) {
        (true, 1) => "scope",
        (true, _) => "scopes",
        (false, 1) => "node",
        (false, _) => "nodes",
    };
    let gone = if gone > 0 { format!(", {gone} gone") } else { String::new() };
    Line::from(format!("netdiag watch: {rows} {what}{gone}, over {}", table.place)).bold()
}

/// The last minute's rates in proportion to the most that is recommended, the newest on the right.
fn chart(row: &Row) -> String {
    let most = row.message.hint.max_tps.get();
    let history: Vec<Option<f64>> = row.history.iter().copied().collect();
    let bars = history.rchunks(EACH).map(|chunk| {
        let rates: Vec<f64> = chunk.iter().flatten().copied().collect();
        if rates.is_empty() {
            return ' ';
        }
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        let at = (mean / most * BARS.len() as f64).ceil() as usize;
        BARS[at.clamp(1, BARS.len()) - 1]
    });
    let bars: Vec<char> = bars.collect();
    let text: String = bars.iter().rev().collect();
    format!("{text:>width$}", width = HISTORY / EACH)
}

#[cfg(test)]
mod tests {
    use netdiag_hints::bus::{NodeHint, NodeName};
    use netdiag_pacer::{Hint, TpsRange};
    use netdiag_telemetry::{Scope, Tps};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn update(node: &str, tps: f64, state: State, hold: bool) -> Update {
        let rate = |rate| Tps::try_new(rate).expect("a rate");
        let range = TpsRange::try_new(rate(5.0), rate(80.0)).expect("a range");
        let hint = Hint {
            current_tps: rate(tps),
            state,
            hold,
            ..Hint::unknown(range, &Scope::Host, "path:\nunsent data")
        };
        let message = NodeHint {
            node: NodeName::try_new(node).expect("a name"),
            session: 1,
            sequence: 1,
            time: 0.0,
            ttl_seconds: 2.0,
            streams: Some(12),
            hint,
        };
        Update { hint: message, holds: Duration::from_secs(2) }
    }

    fn screen(width: u16, after: Duration) -> Vec<String> {
        let now = Instant::now();
        let mut table = Table::new("nats://127.0.0.1:4222".to_owned(), false);
        for second in 0..6 {
            table.take(update("gpu-1", 13.0 * f64::from(second) + 10.0, State::Clear, false), now);
            table.take(update("gpu-2", 5.0, State::Stalled, true), now);
            table.second(now);
        }
        let mut terminal = Terminal::new(TestBackend::new(width, 6)).expect("a terminal");
        let mut view = View { state: TableState::default(), colors: true, told: String::new() };
        terminal.draw(|frame| view.draw(frame, &table, now + after)).expect("drawn");
        let buffer = terminal.backend().buffer().clone();
        (0..6)
            .map(|y| {
                let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
                line.trim_end().to_owned()
            })
            .collect()
    }

    #[test]
    fn it_is_a_table_and_a_narrow_one_has_fewer_columns() {
        assert_eq!(
            screen(110, Duration::ZERO),
            [
                "netdiag watch: 2 nodes, over nats://127.0.0.1:4222",
                "NODE   STATE        TOK/S    LAST MINUTE           HEALTH  STREAMS  AGE     WHY",
                "gpu-1  clear           75.0                    ▃▇    1.00       12   0.0 s  path: unsent data",
                "gpu-2  held             5.0                    ▁▁    1.00       12   0.0 s  path: unsent data",
                "",
                "q ends  ↑ ↓ PgUp PgDn move",
            ]
        );
        assert_eq!(screen(40, Duration::ZERO)[2], "gpu-1  clear           75.0");
    }

    #[test]
    fn what_is_not_heard_of_any_more_is_gone() {
        let lines = screen(110, Duration::from_secs(4));
        assert_eq!(lines[0], "netdiag watch: 2 nodes, 2 gone, over nats://127.0.0.1:4222");
        assert!(lines[2].starts_with("gpu-1  gone               –"), "{}", lines[2]);
        assert!(lines[2].ends_with("4.0 s  nothing heard of it any more"), "{}", lines[2]);
    }
}
