//! Commands that a shell carries out itself, because they change it.

use super::parse;
use super::process::{Process, Switch, Unwind};
use crate::sim::files::{Links, Permission, normal};
use crate::sim::programs;

const BUILTINS: [&str; 24] = [
    ":", ".", "break", "cd", "command", "continue", "eval", "exec", "exit", "export", "false", "local",
    "pwd", "read", "readonly", "return", "set", "shift", "trap", "true", "type", "umask", "unset", "wait",
];

impl Process {
    /// Runs a builtin; `None` where the name is none.
    pub(super) fn run_builtin(&mut self, name: &str, arguments: &[String]) -> Option<Result<i32, Unwind>> {
        let first = arguments.first().map(String::as_str);
        let number = first.and_then(|text| text.parse::<i32>().ok());
        let levels = number.and_then(|number| u32::try_from(number).ok()).unwrap_or(1).max(1);
        Some(match name {
            ":" | "true" | "wait" => Ok(0),
            "false" => Ok(1),
            "exit" => Err(Unwind::Exit(number.unwrap_or(self.status))),
            "return" => Err(Unwind::Return(number.unwrap_or(self.status))),
            "break" => Err(Unwind::Break(levels)),
            "continue" => Err(Unwind::Continue(levels)),
            "exec" => self.execute(arguments).and_then(|status| {
                self.trap = None;
                Err(Unwind::Exit(status))
            }),
            "cd" => Ok(self.change_folder(first)),
            "pwd" => {
                let folder = self.folder.clone();
                self.put_line(&folder);
                Ok(0)
            }
            "export" | "readonly" | "local" => Ok(self.declare(name, arguments)),
            "unset" => {
                for name in arguments.iter().filter(|argument| !argument.starts_with('-')) {
                    self.variables.remove(name);
                    self.functions.remove(name);
                }
                Ok(0)
            }
            "set" => Ok(self.set(arguments)),
            "shift" => {
                let count = levels as usize;
                if count > self.positional.len() {
                    return Some(Err(Unwind::Exit(self.fail(2, "sh: 1: shift: can't shift that many"))));
                }
                self.positional.drain(..count);
                Ok(0)
            }
            "umask" => Ok(self.set_umask(first)),
            "trap" => Ok(self.set_trap(arguments)),
            "read" => Ok(self.read(arguments)),
            "command" | "type" => self.command_builtin(name, arguments),
            "eval" => match parse(&arguments.join(" ")) {
                Ok(script) => self.run(&script),
                Err(message) => Ok(self.fail(2, &format!("sh: {message}"))),
            },
            "." => Ok(self.fail(2, "sh: 1: `.` is not simulated")),
            _ => return None,
        })
    }

    fn change_folder(&mut self, to: Option<&str>) -> i32 {
        let home = self.variable("HOME").unwrap_or("/").to_owned();
        let to = to.unwrap_or(&home).to_owned();
        let path = normal(&self.path(&to));
        let metadata = self.files(|files| files.metadata(self.who, &path, Links::Follow));
        let may = self.files(|files| files.may(self.who, &path, Permission::Search));
        if metadata.is_ok_and(|metadata| metadata.is_directory()) && may {
            self.folder = path;
            return 0;
        }
        self.fail(2, &format!("sh: 1: cd: can't cd to {to}"))
    }

    fn declare(&mut self, builtin: &str, arguments: &[String]) -> i32 {
        for argument in arguments.iter().filter(|argument| !argument.starts_with('-')) {
            let (name, value) = argument
                .split_once('=')
                .map_or((argument.as_str(), None), |(name, value)| (name, Some(value)));
            if let Some(value) = value {
                self.assign(name, value);
            }
            if builtin == "export" {
                let value = self.variable(name).unwrap_or_default().to_owned();
                self.export(name, &value);
            }
        }
        0
    }

    fn set(&mut self, arguments: &[String]) -> i32 {
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                self.positional = arguments.cloned().collect();
                return 0;
            }
            let switch = match argument.chars().next() {
                Some('-') => Switch::On,
                Some('+') => Switch::Off,
                _ => {
                    self.positional = std::iter::once(argument).chain(arguments).cloned().collect();
                    return 0;
                }
            };
            for letter in argument.chars().skip(1) {
                match letter {
                    'e' => self.options.errexit = switch,
                    'u' => self.options.nounset = switch,
                    'C' => self.options.noclobber = switch,
                    'f' => self.options.noglob = switch,
                    'x' | 'a' | 'b' | 'm' | 'n' | 'v' | 'o' => {
                        return self.fail(2, &format!("sh: 1: set: -{letter} is not simulated"));
                    }
                    letter => return self.fail(2, &format!("sh: 1: set: Illegal option -{letter}")),
                }
            }
        }
        0
    }

    fn set_umask(&mut self, mask: Option<&str>) -> i32 {
        match mask {
            None => {
                let line = format!("{:04o}", self.umask);
                self.put_line(&line);
                0
            }
            Some(mask) => match u32::from_str_radix(mask, 8) {
                Ok(mask) => {
                    self.umask = mask & 0o777;
                    0
                }
                Err(_) => self.fail(2, &format!("sh: 1: umask: Illegal mode: {mask}")),
            },
        }
    }

    fn set_trap(&mut self, arguments: &[String]) -> i32 {
        let Some((action, signals)) = arguments.split_first() else { return 0 };
        for signal in signals {
            match (signal.as_str(), action.as_str()) {
                ("EXIT" | "0", "-") => self.trap = None,
                ("EXIT" | "0", action) => self.trap = Some(action.to_owned()),
                ("PIPE" | "13", action) => self.ignores_pipe = action.is_empty(),
                // No other signal ever comes.
                ("INT" | "TERM" | "HUP" | "QUIT" | "1" | "2" | "3" | "15", _) => {}
                (signal, _) => return self.fail(1, &format!("sh: 1: trap: {signal}: bad trap")),
            }
        }
        0
    }

    fn read(&mut self, arguments: &[String]) -> i32 {
        let raw = arguments.iter().any(|argument| argument == "-r");
        let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
        let mut text = String::new();
        let mut complete = false;
        while let Some((line, ended)) = self.stdin.read_line() {
            text.push_str(&String::from_utf8_lossy(&line));
            complete = ended;
            if raw || !text.ends_with('\\') {
                break;
            }
            text.pop();
        }
        let separators = self.variable("IFS").unwrap_or(" \t\n").to_owned();
        let separates = |character: char| separators.contains(character);
        let blank = |character: char| separates(character) && character.is_whitespace();
        let mut rest = text.trim_matches(blank);
        for (index, name) in names.iter().enumerate() {
            let value = if index + 1 == names.len() {
                std::mem::take(&mut rest)
            } else {
                let (value, after) = rest.split_once(separates).unwrap_or((rest, ""));
                rest = after.trim_start_matches(blank);
                value
            };
            self.assign(name, value);
        }
        i32::from(!complete)
    }

    fn command_builtin(&mut self, name: &str, arguments: &[String]) -> Result<i32, Unwind> {
        let asks = name == "type" || matches!(arguments.first().map(String::as_str), Some("-v" | "-V"));
        if !asks {
            return match arguments.split_first() {
                Some((name, rest)) => self.run_builtin(name, rest).unwrap_or_else(|| self.execute(arguments)),
                None => Ok(0),
            };
        }
        let mut status = 0;
        for name in arguments.iter().filter(|argument| !argument.starts_with('-')) {
            let base = name.rsplit('/').next().unwrap_or(name);
            if self.functions.contains_key(name) || BUILTINS.contains(&name.as_str()) {
                self.put_line(name);
            } else if programs::find(self, base).is_some() {
                self.put_line(&format!("/usr/bin/{base}"));
            } else {
                status = 127;
            }
        }
        Ok(status)
    }
}
