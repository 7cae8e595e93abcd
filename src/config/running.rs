//! The settings of a running node: shown one by one, and those that can be changed without a file.

use super::Config;
use super::layers::Form;
use super::schema::{self, Key};
use crate::limits::Limits;
use toml::Value;

/// Every setting but the secrets, by its path as in `limits.clients_max`, with its value: numbers in bytes or
/// milliseconds, lists separated by commas.
pub fn settings(config: &Config) -> Vec<(String, String)> {
    let values = toml::Table::try_from(Form::of(config)).unwrap_or_default();
    let text_of = |key: Key| {
        let table = if key.table.is_empty() { &values } else { values.get(key.table)?.as_table()? };
        Some((key.path(), text(table.get(key.name)?)))
    };
    schema::keys().filter_map(text_of).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Table(_) => {
            value.to_string()
        }
    }
}

impl Limits {
    /// These limits with `text` as the value of the limit `name`, read as in the environment: `1GiB`, `5s`. `None` if
    /// there is no such limit.
    ///
    /// # Errors
    /// A message: the value is out of the range of the limit, or contradicts another limit.
    pub fn with(&self, name: &str, text: &str) -> Option<Result<Self, String>> {
        let key = schema::find("limits", name)?;
        let change = || {
            let value = key.read_text(text)?;
            key.check(&value)?;
            let mut table = toml::Table::try_from(self).map_err(|error| error.to_string())?;
            table.insert(name.to_owned(), value);
            let limits: Self =
                table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
            limits.check()?;
            Ok(limits)
        };
        Some(change())
    }
}

#[cfg(test)]
mod tests {
    use super::settings;
    use crate::config::{Config, Secret};
    use crate::limits::{LIMIT_RANGES, Limits};

    #[test]
    fn every_limit_is_shown_and_no_secret() {
        let password = Some(Secret::new("sesame".to_owned()));
        let shown = settings(&Config { password, ..Config::default() });
        for range in &LIMIT_RANGES {
            let path = format!("limits.{}", range.name);
            assert!(shown.iter().any(|(name, _)| *name == path), "{path}");
        }
        assert!(!format!("{shown:?}").contains("sesame"));
    }

    #[test]
    fn limit_takes_what_is_in_its_range_and_agrees_with_the_others() {
        let limits = Limits::default();
        let changed = limits.with("memory_max", "100MiB").unwrap().unwrap();
        assert_eq!(changed, Limits { memory_max: 100 << 20, ..limits.clone() });
        assert!(limits.with("memory_max", "lots").unwrap().is_err());
        assert!(limits.with("args_max", "1").unwrap().is_err());
        assert!(limits.with("value_bytes_max", "64MiB").unwrap().unwrap_err().contains("reply_bytes_max"));
        assert!(limits.with("nope", "1").is_none());
    }
}
