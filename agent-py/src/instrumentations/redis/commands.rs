//! What redis-py sends, without its values: commands and the queues of pipelines.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use agent_core::fragment::Fragment;
use agent_core::semconv;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyBytes, PyList, PyString, PyTuple};

use super::places::{locked, place_of, put};
use crate::ffi::{intern, quiet};
use crate::objects::{attribute, text};
use crate::old_names;

/// Of a command with more arguments, and of a pipeline with more commands, the first are shown.
const MAX_ARGUMENTS: usize = 32;
const MAX_COMMANDS: usize = 64;
/// No command has a longer name: this is something else, which is not shown.
const MAX_NAME: usize = 64;

/// A command without its values.
pub struct Command {
    /// As given, a subcommand with it; empty where it cannot be told.
    operation: Box<str>,
    /// `SET ? ?`.
    text: Box<str>,
    /// Whether the first argument names what the server is to run.
    pub procedure: bool,
    /// What its spans share.
    pub fragment: Fragment,
}

struct SeenCommand {
    /// A text written in code, the library's own for the most part, is one object for ever. A place keeps its text
    /// alive, so that no other object can have its address.
    name: Py<PyAny>,
    arguments: usize,
    command: Arc<Command>,
}

// Never held across a call into Python.
static COMMANDS: Mutex<Vec<Option<SeenCommand>>> = Mutex::new(Vec::new());

/// A command by its name, as the application gave it, and its count of arguments.
#[inline]
pub fn described(name: &Bound<'_, PyAny>, arguments: usize) -> Option<Arc<Command>> {
    with_described(name, arguments, Arc::clone)
}

/// As [`described`], for `work` that calls nothing of Python's.
#[inline]
pub fn with_described<R>(
    name: &Bound<'_, PyAny>,
    arguments: usize,
    work: impl FnOnce(&Arc<Command>) -> R,
) -> Option<R> {
    let place = place_of(name, arguments);
    if let Some(Some(seen)) = locked(&COMMANDS).get(place)
        && seen.name.is(name)
        && seen.arguments == arguments
    {
        return Some(work(&seen.command));
    }
    described_anew(name, arguments, place).map(|command| work(&command))
}

#[cold]
fn described_anew(name: &Bound<'_, PyAny>, arguments: usize, place: usize) -> Option<Arc<Command>> {
    let given = Some(name.clone());
    let command = Arc::new(Command::of(text(&given)?, arguments));
    // A subclass may run code when it goes.
    if (name.is_exact_instance_of::<PyString>() || name.is_exact_instance_of::<PyBytes>())
        && command.operation.len() <= MAX_NAME
    {
        let seen = SeenCommand { name: name.clone().unbind(), arguments, command: command.clone() };
        drop(put(&COMMANDS, place, seen).map(|old| old.name.into_bound(name.py())));
    }
    Some(command)
}

impl Command {
    fn of(given: &str, arguments: usize) -> Self {
        // A command may be given as one text with its arguments, which the library takes apart at white space.
        let mut words = given.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        let mut hidden = arguments;
        let mut operation = Cow::Borrowed(first);
        if let Some(second) = words.next() {
            if has_subcommands(first) && second.len() <= MAX_NAME {
                operation = Cow::Owned(format!("{first} {second}"));
            } else {
                hidden += 1;
            }
            hidden += words.count();
        }
        if first.len() > MAX_NAME {
            operation = Cow::Borrowed("");
        }
        let mut text = operation.to_string();
        for _ in 0..hidden.min(MAX_ARGUMENTS) {
            text.push_str(" ?");
        }
        if hidden > MAX_ARGUMENTS {
            text.push_str(" ...");
        }
        let fragment = fragment(&operation, &text);
        // Given in one text with its arguments, what follows is something else.
        let procedure = hidden == arguments
            && ["EVALSHA", "EVALSHA_RO", "FCALL", "FCALL_RO"]
                .iter()
                .any(|name| operation.eq_ignore_ascii_case(name));
        Self { operation: operation.into(), text: text.into(), procedure, fragment }
    }
}

fn fragment(operation: &str, text: &str) -> Fragment {
    Fragment::new(|span| {
        if !operation.is_empty() {
            span.name(operation);
            span.str(&semconv::DB_OPERATION_NAME, operation);
        }
        span.str(&semconv::DB_SYSTEM_NAME, "redis");
        if !text.is_empty() {
            span.str(&semconv::DB_QUERY_TEXT, text);
        }
        if old_names::database() {
            span.str(&old_names::DB_SYSTEM, "redis");
            if !text.is_empty() {
                span.str(&old_names::DB_STATEMENT, text);
            }
            if !operation.is_empty() {
                span.str(&old_names::DB_OPERATION, operation);
            }
        }
    })
}

/// Whether a command's first argument belongs to its name.
fn has_subcommands(command: &str) -> bool {
    [
        "ACL",
        "CLIENT",
        "CLUSTER",
        "COMMAND",
        "CONFIG",
        "DEBUG",
        "FT.CONFIG",
        "FT.CURSOR",
        "FUNCTION",
        "HIMPORT",
        "JSON.DEBUG",
        "LATENCY",
        "MEMORY",
        "MODULE",
        "OBJECT",
        "PUBSUB",
        "SCRIPT",
        "SENTINEL",
        "SLOWLOG",
        "XGROUP",
        "XINFO",
    ]
    .iter()
    .any(|name| command.eq_ignore_ascii_case(name))
}

/// What the commands of a pipeline say of it, and how many they are.
pub fn batch(commands: &Bound<'_, PyList>, transaction: bool) -> (Fragment, usize) {
    let mut last: Option<(Bound<'_, PyAny>, usize)> = None;
    let mut first: Option<Arc<Command>> = None;
    let mut at: Option<Arc<Command>> = None;
    let (mut one_operation, mut one_text) = (true, true);
    let mut text = String::new();
    for (index, command) in commands.iter().enumerate() {
        if index == MAX_COMMANDS {
            text.push_str("; ...");
        }
        if index >= MAX_COMMANDS && !one_operation {
            break;
        }
        let Some((name, arguments)) = queued(&command) else {
            (one_operation, one_text) = (false, false);
            continue;
        };
        if !last.as_ref().is_some_and(|(seen, count)| seen.is(&name) && *count == arguments) {
            at = described(&name, arguments);
            last = Some((name, arguments));
            if first.is_none() {
                first.clone_from(&at);
            }
            if let (Some(first), Some(at)) = (&first, &at) {
                one_operation &= first.operation == at.operation;
                one_text &= first.text == at.text;
            }
        }
        if index < MAX_COMMANDS
            && let Some(at) = &at
        {
            if index > 0 {
                text.push_str("; ");
            }
            text.push_str(&at.text);
        }
    }
    if let Some(first) = first.as_ref().filter(|_| one_text) {
        text = first.text.to_string();
    }
    let mut operation = String::from(if transaction { "MULTI" } else { "PIPELINE" });
    if let Some(first) = first.filter(|first| one_operation && !first.operation.is_empty()) {
        operation.push(' ');
        operation.push_str(&first.operation);
    }
    (fragment(&operation, &text), commands.len())
}

/// Name and count of arguments of a command in a pipeline's queue.
fn queued<'py>(command: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyAny>, usize)> {
    let py = command.py();
    let args = match command.cast_exact::<PyTuple>() {
        Ok(pair) => quiet(py, pair.get_item(0))?,
        Err(_) => attribute(command, intern!(py, "args"))?,
    };
    let args = args.cast_into_exact::<PyTuple>().ok()?;
    Some((quiet(py, args.get_item(0))?, args.len() - 1))
}

/// A pipeline's queue and whether it goes out as a transaction; nothing where nothing would be sent.
pub fn queue<'py>(pipeline: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyList>, bool)> {
    let py = pipeline.py();
    let is = |of: &Bound<'py, PyAny>, name| {
        // Of the same name there are methods elsewhere.
        attribute(of, name)
            .is_some_and(|value| value.cast_exact::<PyBool>().is_ok_and(|value| value.is_true()))
    };
    let strategy = attribute(pipeline, intern!(py, "_execution_strategy"));
    let (commands, transaction, watching) = match &strategy {
        Some(strategy) => {
            let class = strategy.get_type();
            let transaction = quiet(py, class.name()).is_some_and(|name| name == "TransactionStrategy");
            (
                attribute(strategy, intern!(py, "_command_queue")),
                transaction,
                is(strategy, intern!(py, "_watching")),
            )
        }
        None => (
            attribute(pipeline, intern!(py, "command_stack"))
                .or_else(|| attribute(pipeline, intern!(py, "_command_stack"))),
            is(pipeline, intern!(py, "transaction"))
                || is(pipeline, intern!(py, "is_transaction"))
                || is(pipeline, intern!(py, "explicit_transaction")),
            is(pipeline, intern!(py, "watching")),
        ),
    };
    let commands = commands?.cast_into_exact::<PyList>().ok()?;
    (!commands.is_empty() || watching).then_some((commands, transaction))
}
