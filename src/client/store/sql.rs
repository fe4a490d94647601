//! Conditions on documents as SQL. Values are bound, never written into the text.

use serde_json::Value;
use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;

use crate::client::query::{Compare, Condition, Order};
use crate::domain::{Pointer, canonical};

/// Conditions, ready for a statement over `records`.
#[derive(Clone, Debug, Default)]
pub(in crate::client) struct Conditions {
    sql: String,
    values: Vec<Bound>,
}

#[derive(Clone, Debug)]
enum Bound {
    Text(String),
    Integer(i64),
    Real(f64),
}

impl Conditions {
    /// All of these; they begin after `first` parameters.
    pub(in crate::client) fn all(conditions: &[Condition], first: usize) -> Self {
        let mut all = Self::default();
        for condition in conditions {
            let path = all.bind(first, Bound::Text(path(&condition.path)));
            let sql = match (&condition.compare, &condition.value) {
                (Compare::Exists, _) => format!("json_type(shown, {path}) IS NOT NULL"),
                (Compare::Contains, value) => {
                    let list = format!("json_each(shown, {path})");
                    let (test, kinds) = all.value(first, value);
                    format!(
                        "json_type(shown, {path}) = 'array' AND EXISTS (SELECT 1 FROM {list} \
                         AS item WHERE item.type IN ({kinds}) AND {test})",
                        test = test.replace("{}", "item.value")
                    )
                }
                (Compare::NotEqual, value) => {
                    let (test, kinds) = all.value(first, value);
                    let test = test.replace("{}", &format!("json_extract(shown, {path})"));
                    format!("NOT coalesce(json_type(shown, {path}) IN ({kinds}) AND {test}, 0)")
                }
                (compare, value) => {
                    let (test, kinds) = all.value(first, value);
                    let test = test.replace("{}", &format!("json_extract(shown, {path})"));
                    let test = test.replacen(" = ", &format!(" {} ", compare.operator()), 1);
                    format!("json_type(shown, {path}) IN ({kinds}) AND {test}")
                }
            };
            all.sql.push_str(" AND ");
            all.sql.push_str(&sql);
        }
        all
    }

    /// A comparison with a value, with `{}` for what is compared, and the types that fit.
    fn value(&mut self, first: usize, value: &Value) -> (String, &'static str) {
        let (bound, kinds) = match value {
            Value::Null => return ("1 = 1".into(), "'null'"),
            Value::Bool(true) => return ("1 = 1".into(), "'true'"),
            Value::Bool(false) => return ("1 = 1".into(), "'false'"),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => (Bound::Integer(integer), "'integer','real'"),
                (None, real) => (Bound::Real(real.unwrap_or(0.0)), "'integer','real'"),
            },
            Value::String(text) => (Bound::Text(text.clone()), "'text'"),
            // As documents are kept.
            Value::Array(_) => (Bound::Text(canonical(value)), "'array'"),
            Value::Object(_) => (Bound::Text(canonical(value)), "'object'"),
        };
        let mark = self.bind(first, bound);
        (format!("{{}} = {mark}"), kinds)
    }

    fn bind(&mut self, first: usize, value: Bound) -> String {
        self.values.push(value);
        format!("?{}", first + self.values.len())
    }

    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    pub(super) fn bind_to(
        &self,
        query: Query<'static, Sqlite, SqliteArguments>,
    ) -> Query<'static, Sqlite, SqliteArguments> {
        self.values.iter().fold(query, |query, value| match value {
            Bound::Text(text) => query.bind(text.as_str()),
            Bound::Integer(integer) => query.bind(*integer),
            Bound::Real(real) => query.bind(*real),
        })
    }
}

/// The order of a query, by paths that were checked.
pub(super) fn order(orders: &[Order]) -> String {
    let mut sql = String::new();
    for Order { path: by, descending } in orders {
        let way = if *descending { "DESC" } else { "ASC" };
        // A quote in a path is doubled, as in any text of SQL.
        let path = path(by).replace('\'', "''");
        sql.push_str(&format!("json_extract(shown, '{path}') {way}, "));
    }
    sql + "id ASC"
}

/// A path as SQLite writes it. Keys with quotes or backslashes were refused.
fn path(pointer: &Pointer) -> String {
    pointer.keys().iter().fold("$".to_owned(), |path, key| path + ".\"" + key + "\"")
}
