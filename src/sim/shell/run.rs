//! Running a [`Script`].

use super::pattern::symbols_match;
use super::process::{Process, Switch, Unwind, Variable};
use super::{
    AndOr, Body, Command, Expected, Join, Pipeline, Redirection, Script, Sink, Source, Target, Word,
};
use crate::sim::files::WriteMode;
use crate::sim::programs;

/// What a redirection changed, to be put back.
struct Descriptors {
    stdin: Source,
    sinks: std::collections::BTreeMap<usize, Sink>,
}

impl Process {
    /// Runs commands one after another and returns the last status.
    pub(crate) fn run(&mut self, script: &Script) -> Result<i32, Unwind> {
        let mut status = 0;
        for and_or in script {
            status = self.run_and_or(and_or)?;
            self.status = status;
        }
        Ok(status)
    }

    fn run_and_or(&mut self, and_or: &AndOr) -> Result<i32, Unwind> {
        let mut pipelines = vec![(None, &and_or.first)];
        pipelines.extend(and_or.rest.iter().map(|(join, pipeline)| (Some(*join), pipeline)));
        let last = pipelines.len() - 1;
        let mut status = 0;
        for (index, (join, pipeline)) in pipelines.into_iter().enumerate() {
            match join {
                Some(Join::And) if status != 0 => continue,
                Some(Join::Or) if status == 0 => continue,
                _ => {}
            }
            let guarded = index != last || pipeline.negated;
            status = if guarded {
                self.run_condition(|process| process.run_pipeline(pipeline))?
            } else {
                self.run_pipeline(pipeline)?
            };
            self.status = status;
            let fatal = !guarded && status != 0 && self.conditions == 0;
            if fatal && self.options.errexit == Switch::On {
                return Err(Unwind::Exit(status));
            }
        }
        Ok(status)
    }

    /// Runs something whose failure is an answer: `set -e` does not act in it.
    fn run_condition(
        &mut self,
        action: impl FnOnce(&mut Self) -> Result<i32, Unwind>,
    ) -> Result<i32, Unwind> {
        self.conditions += 1;
        let result = action(self);
        self.conditions -= 1;
        result
    }

    fn run_pipeline(&mut self, pipeline: &Pipeline) -> Result<i32, Unwind> {
        let status = match pipeline.commands.as_slice() {
            [command] => self.run_command(command)?,
            commands => self.run_stages(commands)?,
        };
        Ok(if pipeline.negated { i32::from(status == 0) } else { status })
    }

    /// Runs the stages of a pipeline one after another; each reads all that the one before has written.
    fn run_stages(&mut self, commands: &[Command]) -> Result<i32, Unwind> {
        let mut stdin = self.stdin.clone();
        let mut status = 0;
        for (index, command) in commands.iter().enumerate() {
            let mut stage = self.clone();
            stage.trap = None;
            stage.stdin = stdin;
            let buffer = Sink::buffer();
            if index + 1 < commands.len() {
                stage.set_sink(1, buffer.clone());
            }
            let result = stage.run_command(command);
            status = stage.finish(result)?;
            stdin = Source::of(buffer.take());
        }
        Ok(status)
    }

    fn run_command(&mut self, command: &Command) -> Result<i32, Unwind> {
        self.step()?;
        if let Body::Simple { assignments, words } = &command.body {
            return self.run_simple(assignments, words, &command.redirections);
        }
        let saved = match self.redirect(&command.redirections)? {
            Ok(saved) => saved,
            Err(status) => return Ok(status),
        };
        let result = self.run_compound(&command.body);
        self.restore(saved);
        result
    }

    fn run_compound(&mut self, body: &Body) -> Result<i32, Unwind> {
        match body {
            Body::Group(script) => self.run(script),
            Body::Subshell(script) => {
                let mut child = self.clone();
                child.trap = None;
                let result = child.run(script);
                child.finish(result)
            }
            Body::If { branches, otherwise } => {
                for (condition, script) in branches {
                    if self.run_condition(|process| process.run(condition))? == 0 {
                        return self.run(script);
                    }
                }
                otherwise.as_ref().map_or(Ok(0), |script| self.run(script))
            }
            Body::Loop { until, condition, body } => self.run_loop(*until, condition, body),
            Body::For { name, words, body } => {
                let values = match words {
                    Some(words) => self.arguments(words)?,
                    None => self.positional.clone(),
                };
                let mut status = 0;
                for value in values {
                    self.step()?;
                    self.assign(name, &value);
                    match self.run_body(body)? {
                        Some(result) => status = result,
                        None => break,
                    }
                }
                Ok(status)
            }
            Body::Case { subject, arms } => {
                let subject: Vec<char> = self.text(subject)?.chars().collect();
                for (patterns, script) in arms {
                    for pattern in patterns {
                        if symbols_match(&self.symbols(pattern)?, &subject) {
                            return self.run(script);
                        }
                    }
                }
                Ok(0)
            }
            Body::Function { name, body } => {
                self.functions.insert(name.clone(), std::sync::Arc::clone(body));
                Ok(0)
            }
            Body::Simple { assignments, words } => self.run_simple(assignments, words, &[]),
        }
    }

    fn run_loop(&mut self, until: Expected, condition: &Script, body: &Script) -> Result<i32, Unwind> {
        let mut status = 0;
        loop {
            self.step()?;
            let succeeded = self.run_condition(|process| process.run(condition))? == 0;
            if succeeded == (until == Expected::Success) {
                return Ok(status);
            }
            match self.run_body(body)? {
                Some(result) => status = result,
                None => return Ok(0),
            }
        }
    }

    /// Runs the body of a loop once; `None` when the loop is to end.
    fn run_body(&mut self, body: &Script) -> Result<Option<i32>, Unwind> {
        match self.run(body) {
            Ok(status) => Ok(Some(status)),
            Err(Unwind::Break(1)) => Ok(None),
            Err(Unwind::Continue(1)) => Ok(Some(0)),
            Err(Unwind::Break(levels)) => Err(Unwind::Break(levels - 1)),
            Err(Unwind::Continue(levels)) => Err(Unwind::Continue(levels - 1)),
            Err(unwind) => Err(unwind),
        }
    }

    fn run_simple(
        &mut self,
        assignments: &[(String, Word)],
        words: &[Word],
        redirections: &[Redirection],
    ) -> Result<i32, Unwind> {
        let before = std::mem::replace(&mut self.status, 0);
        // `$?` in the words is the status of the command before.
        self.status = before;
        let arguments = self.arguments(words)?;
        if arguments.is_empty() {
            let has_value = !assignments.is_empty();
            self.status = 0;
            for (name, word) in assignments {
                let value = self.text(word)?;
                self.assign(name, &value);
            }
            let status = if has_value { self.status } else { 0 };
            return Ok(match self.redirect(redirections)? {
                Ok(saved) => {
                    self.restore(saved);
                    status
                }
                Err(failed) => failed,
            });
        }
        let is_exec = arguments.first().is_some_and(|name| name == "exec");
        let saved = match self.redirect(redirections)? {
            Ok(saved) => saved,
            Err(status) => return Ok(status),
        };
        if is_exec && arguments.len() == 1 {
            return Ok(0);
        }
        let mut replaced = Vec::new();
        for (name, word) in assignments {
            let value = self.text(word)?;
            replaced.push((name.clone(), self.variables.get(name).cloned()));
            self.export(name, &value);
        }
        let result = self.call(&arguments);
        for (name, variable) in replaced {
            self.put_back(name, variable);
        }
        self.restore(saved);
        result
    }

    fn put_back(&mut self, name: String, variable: Option<Variable>) {
        match variable {
            Some(variable) => self.variables.insert(name, variable),
            None => self.variables.remove(&name),
        };
    }

    /// Runs a function, a builtin or a program.
    fn call(&mut self, arguments: &[String]) -> Result<i32, Unwind> {
        let Some((name, rest)) = arguments.split_first() else { return Ok(0) };
        if let Some(body) = self.functions.get(name).cloned() {
            let outer = std::mem::replace(&mut self.positional, rest.to_vec());
            let result = match self.run_command(&body) {
                Err(Unwind::Return(status)) => Ok(status),
                result => result,
            };
            self.positional = outer;
            return result;
        }
        let status = match self.run_builtin(name, rest) {
            Some(result) => result?,
            None => self.execute(arguments)?,
        };
        let status = if std::mem::take(&mut self.write_failed) && status == 0 { 1 } else { status };
        if !std::mem::take(&mut self.pipe_broken) || self.ignores_pipe {
            return Ok(status);
        }
        // SIGPIPE ends who writes: the shell itself, or the program that it waits for.
        if matches!(name.as_str(), "echo" | "printf") { Err(Unwind::Killed) } else { Ok(141) }
    }

    /// Runs a program.
    pub(crate) fn execute(&mut self, arguments: &[String]) -> Result<i32, Unwind> {
        let Some((name, rest)) = arguments.split_first() else { return Ok(0) };
        let base = name.rsplit('/').next().unwrap_or(name);
        match programs::find(self, base) {
            Some(program) => program(self, rest),
            None => Ok(self.fail(127, &format!("sh: 1: {name}: not found"))),
        }
    }

    fn restore(&mut self, saved: Descriptors) {
        self.stdin = saved.stdin;
        self.sinks = saved.sinks;
    }

    /// Applies redirections; the inner error is the status of one that failed.
    fn redirect(&mut self, redirections: &[Redirection]) -> Result<Result<Descriptors, i32>, Unwind> {
        let saved = Descriptors { stdin: self.stdin.clone(), sinks: self.sinks.clone() };
        for redirection in redirections {
            if let Err(message) = self.apply(redirection)? {
                self.restore(saved);
                return Ok(Err(self.fail(2, &format!("sh: 1: {message}"))));
            }
        }
        Ok(Ok(saved))
    }

    fn apply(&mut self, redirection: &Redirection) -> Result<Result<(), String>, Unwind> {
        let noclobber = self.options.noclobber == Switch::On;
        let (word, mode) = match &redirection.target {
            Target::Here(word) => {
                self.stdin = Source::of(self.text(word)?.into_bytes());
                return Ok(Ok(()));
            }
            Target::Duplicate(word) => {
                let from = self.text(word)?;
                return Ok(self.duplicate(redirection.descriptor, &from));
            }
            Target::Read(word) => (word, None),
            Target::Write(word) if noclobber => (word, Some(WriteMode::Exclusive)),
            Target::Write(word) | Target::Clobber(word) => (word, Some(WriteMode::Truncate)),
            Target::Append(word) => (word, Some(WriteMode::Append)),
        };
        let name = self.text(word)?;
        let path = self.path(&name);
        let Some(mode) = mode else {
            if redirection.descriptor != 0 {
                return Ok(Err(format!(
                    "reading from descriptor {} is not simulated",
                    redirection.descriptor
                )));
            }
            return Ok(match path.as_str() {
                "/dev/null" => {
                    self.stdin = Source::default();
                    Ok(())
                }
                "/dev/stdin" => Ok(()),
                path => match self.files(|files| files.read(self.who, path)) {
                    Ok(content) => {
                        self.stdin = Source::of(content);
                        Ok(())
                    }
                    Err(error) => Err(format!("cannot open {name}: {error}")),
                },
            });
        };
        let sink = match path.as_str() {
            "/dev/null" => Sink::Null,
            "/dev/stdout" => self.sink(1),
            "/dev/stderr" => self.sink(2),
            path => {
                let permissions = 0o666 & !self.umask;
                match self.files(|files| files.open(self.who, path, mode, permissions)) {
                    Ok(id) => Sink::File(std::sync::Arc::clone(&self.node), id),
                    Err(error) => return Ok(Err(format!("cannot create {name}: {error}"))),
                }
            }
        };
        self.set_sink(redirection.descriptor, sink);
        Ok(Ok(()))
    }

    fn duplicate(&mut self, descriptor: usize, from: &str) -> Result<(), String> {
        match (descriptor, from) {
            (0, "-") => self.stdin = Source::default(),
            (_, "-") => self.set_sink(descriptor, Sink::Null),
            (0, "0") => {}
            (_, from) => {
                let number = from.parse::<usize>().ok().filter(|number| self.sinks.contains_key(number));
                let number = number.ok_or_else(|| format!("{from}: Bad file descriptor"))?;
                let sink = self.sink(number);
                self.set_sink(descriptor, sink);
            }
        }
        Ok(())
    }
}
