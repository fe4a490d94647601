//! Where settings come from: flags over environment over file over defaults. Knows all settings by
//! asking clap which flags there are, so that a flag, its variable and its key cannot drift apart:
//! what the environment or the file says is checked and then handed to clap as if it were a flag.
//! Must not know what any of them means.

use std::borrow::Cow;
use std::collections::HashSet;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Error;
use super::args::Cli;

/// Flags that are alternatives: a layer that sets one hides what lower layers say about any of
/// them. So it is one layer that says which keys count, all of them: no forgotten variable adds one.
const ALTERNATIVES: [&[&str]; 3] = [
    &["jwt-secret", "jwt-secret-file", "jwt-public-key", "jwt-private-key", "jwks"],
    &["dev", "target"],
    &["token", "token-file"],
];

const HELP: &str = "Every flag can also be set in the environment (--log-format is \
SYNCLINE_LOG_FORMAT) or in the file given with --config (log-format = \"json\"). Flags win over \
the environment, the environment over the file.";

/// A setting as a lower layer has it: its key, which is its flag's name, and its value.
type Setting = (String, OsString);

/// Reads a variable of the environment.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Parses the command line, filled up from the other layers.
pub(super) fn parse(arguments: Vec<OsString>, environment: Environment<'_>) -> Result<Cli, Error> {
    let mut arguments = with_command(arguments);
    let cli = Cli::command().mut_subcommands(|command| command.after_help(HELP));
    let given = cli.clone().try_get_matches_from(&arguments)?;
    if let Some((name, matches)) = given.subcommand()
        && let Some(command) = cli.find_subcommand(name)
    {
        let mut taken = Taken::by_flags(command, matches);
        let file = match given.get_one::<PathBuf>("config") {
            Some(path) => Some(path.clone()),
            None => variable("config", environment).map(PathBuf::from),
        };
        let mut lower = taken.leave(from_environment(command, environment));
        for (key, value) in &lower {
            check(command, key, value).map_err(|reason| {
                let name = variable_name(key);
                Error::Setting { setting: name, reason }
            })?;
        }
        if let Some(path) = file {
            let known = |(key, _): &Setting| keys(command).any(|known| known == key);
            let settings = from_file(&cli, &path)?;
            lower.extend(taken.leave(settings.into_iter().filter(known).collect()));
        }
        // Behind the command's name, before what the user typed, which may end with `--`.
        let flags = lower.iter().filter_map(|(key, value)| flag(command, key, value));
        arguments.splice(2..2, flags);
    }
    Ok(Cli::from_arg_matches(&cli.try_get_matches_from(arguments)?)?)
}

/// `syncline --listen …` means `syncline dev --listen …`.
fn with_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let asks_for_help = |argument: &OsString| {
        ["-h", "--help", "-V", "--version"].iter().any(|help| argument == help)
    };
    let is_flag = |argument: &OsString| argument.as_encoded_bytes().starts_with(b"-");
    if arguments.is_empty() {
        arguments.push("syncline".into());
    }
    if arguments.get(1).is_none_or(|first| is_flag(first) && !asks_for_help(first)) {
        arguments.insert(1, "dev".into());
    }
    arguments
}

/// The settings that a higher layer has decided.
struct Taken(HashSet<String>);

impl Taken {
    fn by_flags(command: &Command, matches: &ArgMatches) -> Self {
        let typed = command.get_arguments().filter(|argument| {
            matches.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine)
        });
        let mut taken = Self(HashSet::new());
        taken.take(typed.filter_map(|argument| argument.get_long()));
        taken
    }

    fn take<'a>(&mut self, keys: impl Iterator<Item = &'a str>) {
        for key in keys {
            self.0.insert(key.to_owned());
            let others = ALTERNATIVES.iter().filter(|alternatives| alternatives.contains(&key));
            self.0.extend(others.copied().flatten().map(|&other| other.to_owned()));
        }
    }

    /// What this layer decides, which is then taken.
    fn leave(&mut self, layer: Vec<Setting>) -> Vec<Setting> {
        let left: Vec<Setting> =
            layer.into_iter().filter(|(key, _)| !self.0.contains(key)).collect();
        self.take(left.iter().map(|(key, _)| key.as_str()));
        left
    }
}

fn keys(command: &Command) -> impl Iterator<Item = &str> {
    command.get_arguments().filter_map(|argument| argument.get_long())
}

/// The setting as if it had been typed; a switch that is off is not typed at all.
fn flag(command: &Command, key: &str, value: &OsStr) -> Option<OsString> {
    if is_switch(command, key) {
        return (value == "true").then(|| format!("--{key}").into());
    }
    let mut flag = OsString::from(format!("--{key}="));
    flag.push(value);
    Some(flag)
}

fn is_switch(command: &Command, key: &str) -> bool {
    let mut arguments = command.get_arguments();
    let argument = arguments.find(|argument| argument.get_long() == Some(key));
    argument.is_some_and(|argument| matches!(argument.get_action(), ArgAction::SetTrue))
}

fn variable_name(key: &str) -> String {
    format!("SYNCLINE_{}", key.to_ascii_uppercase().replace('-', "_"))
}

/// An empty variable counts as none: compose files cannot leave one out.
fn variable(key: &str, environment: Environment<'_>) -> Option<OsString> {
    let value = environment(&variable_name(key)).filter(|value| !value.is_empty());
    match key {
        // Hosting services set it, and every other tool reads it.
        "database-url" => value.or_else(|| environment("DATABASE_URL")),
        _ => value,
    }
    .filter(|value| !value.is_empty())
}

fn from_environment(command: &Command, environment: Environment<'_>) -> Vec<Setting> {
    keys(command).filter_map(|key| Some((key.to_owned(), variable(key, environment)?))).collect()
}

/// All settings of the file, checked, whichever command they are for.
fn from_file(cli: &Command, path: &Path) -> Result<Vec<Setting>, Error> {
    let text =
        fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let wrong = |at: usize, message: String| {
        let line = 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        Error::File { path: path.to_owned(), line, message }
    };
    let table = DeTable::parse(&text).map_err(|error| {
        wrong(error.span().map_or(0, |span| span.start), error.message().to_owned())
    })?;
    let mut settings = Vec::new();
    for (key, value) in table.get_ref() {
        let at = key.span().start;
        let key = key.get_ref().as_ref();
        let command = cli.get_subcommands().find(|command| keys(command).any(|known| known == key));
        let command = command.ok_or_else(|| wrong(at, unknown(key)))?;
        let text = match (key, value.get_ref()) {
            ("policies", table @ DeValue::Table(_)) => json_of(table).map(|json| json.to_string()),
            (_, value) => text_of(value),
        };
        let text = text
            .ok_or_else(|| wrong(at, format!("`{key}` must be a string, a number or a boolean")))?;
        check(command, key, OsStr::new(&text))
            .map_err(|reason| wrong(at, format!("`{key}`: {reason}")))?;
        settings.push((key.to_owned(), text.into()));
    }
    Ok(settings)
}

fn unknown(key: &str) -> String {
    if key.contains('_') {
        return format!("unknown key `{key}`; keys are written like `{}`", key.replace('_', "-"));
    }
    format!("unknown key `{key}`; keys are the flags that `syncline help serve` lists")
}

fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string())
        }
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// What a table says, as JSON, which has no dates.
fn json_of(value: &DeValue<'_>) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok()?.into()
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().ok()?.into(),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(_) => return None,
        DeValue::Array(items) => {
            items.iter().map(|item| json_of(item.get_ref())).collect::<Option<Vec<_>>>()?.into()
        }
        DeValue::Table(fields) => {
            let field = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                Some((key.get_ref().clone().into_owned(), json_of(value.get_ref())?))
            };
            serde_json::Value::Object(fields.iter().map(field).collect::<Option<_>>()?)
        }
    })
}

/// Whether the flag would take this value; if not, why.
fn check(command: &Command, key: &str, value: &OsStr) -> Result<(), String> {
    let refused = |reason: &str| Err(format!("`{}` is not allowed: {reason}", value.display()));
    if is_switch(command, key) {
        let known = value == "true" || value == "false";
        return if known { Ok(()) } else { refused("expected true or false") };
    }
    let alone = [OsString::from(command.get_name())].into_iter().chain(flag(command, key, value));
    let Err(error) = command.clone().try_get_matches_from(alone) else { return Ok(()) };
    match (error.kind(), error.source(), error.get(ContextKind::ValidValue)) {
        // The only way in which a secret can fail, so its text is not shown.
        (ErrorKind::InvalidUtf8, ..) => Err("expected UTF-8".to_owned()),
        (ErrorKind::InvalidValue | ErrorKind::ValueValidation, Some(source), _) => {
            refused(&source.to_string())
        }
        (ErrorKind::InvalidValue, None, Some(ContextValue::Strings(valid))) => {
            refused(&format!("expected one of {}", valid.join(", ")))
        }
        // That other flags are missing is none of this one's business.
        _ => Ok(()),
    }
}
