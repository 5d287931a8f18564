//! An expression in CEL, the Common Expression Language: what may stand in it, and its value for a request.
//!
//! For [`super`]. The language has no loop without an end; besides, what is accepted is bounded when the file is read:
//! length, depth, no macro within a macro, known variables and functions alone, no regular expressions. So its cost is at
//! most its length times the length of a list that a credential holds. Whether types fit is found out at the request, and
//! what does not fit is refused there.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    ops::Range,
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, Program, Value,
    common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue},
    objects::{Key, Map},
};
use serde_json::Value as Json;

use crate::{
    config::nearest,
    exchange::principal::{Principal, Withheld},
};

/// The longest expression.
pub const MOST_BYTES: usize = 1024;
/// The most openings of a text, and the deepest nesting of what it is read as.
const DEEPEST: usize = 48;

/// The variables that an expression may name.
const VARIABLES: [&str; 9] = [
    "method", "host", "client", "path", "subject", "issuer", "roles", "scopes", "claims",
];
/// The functions and methods that it may call, beside operators.
const FUNCTIONS: [&str; 7] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "string",
    "int",
    "double",
];

/// The operators, functions and macros of the language; what is not on the list above was refused.
static LIBRARY: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled expression.
pub struct Expression {
    text: Box<str>,
    program: Program,
    reads: Reads,
}

/// What an expression reads.
#[derive(Debug, Default)]
struct Reads {
    variables: BTreeSet<&'static str>,
    claims: BTreeSet<String>,
    parameters: BTreeSet<String>,
}

/// Why a text is no acceptable expression.
#[derive(Debug, PartialEq, Eq)]
pub struct Flaw {
    /// What is wrong, for the operator.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The bytes of the text that it is about.
    pub range: Range<usize>,
}

/// What an expression may look at.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The method, upper-case.
    pub method: &'a str,
    /// The host asked for, without a port.
    pub host: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The parameters of the path.
    pub path: &'a [(Box<str>, Box<str>)],
    /// Who asks.
    pub principal: &'a Principal,
    /// What is said of him.
    pub claims: Option<&'a serde_json::Map<String, Json>>,
    /// What counts as held beside his roles and scopes.
    pub withheld: Option<&'a Withheld>,
}

/// What became of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Its value is neither true nor false.
    NotBoolean,
    /// It has no value: a claim is absent, types do not fit.
    Failed,
}

impl Expression {
    /// Reads an expression and holds it against what may stand in one.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn compile(text: &str) -> Result<Self, Flaw> {
        let whole = |message: String, hint: &str| Flaw {
            message,
            hint: Some(hint.to_owned()),
            range: 0..text.len(),
        };
        if text.len() > MOST_BYTES {
            let message = format!("a condition has {MOST_BYTES} bytes at most");
            return Err(whole(message, "several routes may have one each"));
        }
        // Before the parser recurses.
        if nesting(text) > DEEPEST {
            let message = "a condition is nested too deep".to_owned();
            return Err(whole(message, "fewer parentheses, or several routes"));
        }
        let program = Program::compile(text).map_err(|errors| syntax(text, &errors))?;
        let mut walk = Walk {
            text,
            bound: Vec::new(),
            reads: Reads::default(),
        };
        walk.expression(program.expression(), 0)?;
        Ok(Self {
            text: text.into(),
            reads: walk.reads,
            program,
        })
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The claims that it reads.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.reads.claims.iter().map(String::as_str)
    }

    /// The parameters of the path that it reads.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.reads.parameters.iter().map(String::as_str)
    }

    /// Its value for a request.
    pub fn evaluate(&self, facts: &Facts<'_>) -> Outcome {
        let mut context = Context::with_env(Arc::clone(&LIBRARY));
        for name in &self.reads.variables {
            context.add_variable_from_value(*name, self.variable(name, facts));
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(true)) => Outcome::True,
            Ok(Value::Bool(false)) => Outcome::False,
            Ok(_) => Outcome::NotBoolean,
            Err(_) => Outcome::Failed,
        }
    }

    fn variable(&self, name: &str, facts: &Facts<'_>) -> Value {
        let principal = facts.principal;
        match name {
            "method" => text(facts.method),
            "host" => text(facts.host),
            "client" => text(&facts.client.to_string()),
            "subject" => text(&principal.subject),
            "issuer" => text(&principal.issuer),
            "roles" => list(&principal.roles, facts.withheld.map(|held| &held.roles)),
            "scopes" => list(&principal.scopes, facts.withheld.map(|held| &held.scopes)),
            "path" => map(facts
                .path
                .iter()
                .map(|(name, value)| (&**name, text(value)))),
            "claims" => {
                let claims = facts.claims.into_iter().flatten();
                let read = claims.filter(|(name, _)| self.reads.claims.contains(*name));
                map(read.map(|(name, value)| (name.as_str(), of_json(value))))
            }
            _ => Value::Null,
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

fn text(text: &str) -> Value {
    Value::String(Arc::new(text.to_owned()))
}

fn list(words: &[Box<str>], more: Option<&Vec<Box<str>>>) -> Value {
    let words = words.iter().chain(more.into_iter().flatten());
    Value::List(Arc::new(words.map(|word| text(word)).collect()))
}

fn map<'a>(members: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let members = members.map(|(name, value)| (Key::from(name), value));
    Value::Map(Map {
        map: Arc::new(members.collect()),
    })
}

fn of_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::String(words) => text(words),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::Int(whole),
            (None, Some(whole)) => Value::UInt(whole),
            (None, None) => number.as_f64().map_or(Value::Null, Value::Float),
        },
        Json::Array(members) => Value::List(Arc::new(members.iter().map(of_json).collect())),
        Json::Object(members) => map(members
            .iter()
            .map(|(name, value)| (name.as_str(), of_json(value)))),
    }
}

/// How deep a text can be nested at most: no parser goes deeper than there are openings and signs, in quotes or not.
fn nesting(text: &str) -> usize {
    let opens = |byte: &u8| matches!(byte, b'(' | b'[' | b'{' | b'!' | b'-' | b'?');
    text.bytes().filter(opens).count()
}

fn syntax(text: &str, errors: &cel::ParseErrors) -> Flaw {
    let first = errors.errors.first();
    let start = first
        .and_then(|error| usize::try_from(error.pos.1).ok())
        .map_or(0, |column| column.saturating_sub(1));
    let start = text.char_indices().nth(start).map_or(0, |(at, _)| at);
    let message = first.map_or_else(String::new, |error| first_line(&error.msg));
    Flaw {
        message: format!("not an expression: {message}"),
        hint: Some(
            "such as `subject == path.user_id && method == \"GET\"` (Common Expression Language)"
                .to_owned(),
        ),
        range: start..text.len(),
    }
}

fn first_line(message: &str) -> String {
    message
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(120)
        .collect()
}

/// A walk over an expression.
struct Walk<'a> {
    text: &'a str,
    /// Names that macros have bound around this place.
    bound: Vec<String>,
    reads: Reads,
}

impl Walk<'_> {
    fn expression(&mut self, expression: &IdedExpr, depth: usize) -> Result<(), Flaw> {
        if depth > DEEPEST {
            return Err(self.flaw("", "a condition is nested too deep".to_owned(), None));
        }
        let depth = depth + 1;
        match &expression.expr {
            Expr::Ident(name) => self.ident(name),
            Expr::Select(select) => {
                if let Some(read) = self.members(&select.operand) {
                    read.insert(select.field.clone());
                    return Ok(());
                }
                self.expression(&select.operand, depth)
            }
            Expr::Call(call) => {
                if call.func_name == "_[_]"
                    && let [
                        of,
                        IdedExpr {
                            expr: Expr::Literal(LiteralValue::String(name)),
                            ..
                        },
                    ] = call.args.as_slice()
                    && let Some(read) = self.members(of)
                {
                    read.insert(name.inner().to_owned());
                    return Ok(());
                }
                self.function(&call.func_name)?;
                let target = call.target.as_deref().into_iter();
                target
                    .chain(&call.args)
                    .try_for_each(|inner| self.expression(inner, depth))
            }
            Expr::List(list) => list
                .elements
                .iter()
                .try_for_each(|inner| self.expression(inner, depth)),
            Expr::Map(members) => members
                .entries
                .iter()
                .try_for_each(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => {
                        self.expression(&entry.key, depth)?;
                        self.expression(&entry.value, depth)
                    }
                    EntryExpr::StructField(_) => {
                        Err(self.flaw("", "a condition makes no messages".to_owned(), None))
                    }
                }),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, depth),
            Expr::Literal(_) => Ok(()),
            _ => Err(self.flaw("", "a condition makes no messages".to_owned(), None)),
        }
    }

    fn comprehension(
        &mut self,
        inner: &cel::common::ast::ComprehensionExpr,
        depth: usize,
    ) -> Result<(), Flaw> {
        self.expression(&inner.iter_range, depth)?;
        if !self.bound.is_empty() {
            return Err(self.flaw(
                "",
                "a macro stands within a macro".to_owned(),
                Some("the cost of one is bounded by the list, that of two by its square"),
            ));
        }
        self.bound = vec![inner.iter_var.clone(), inner.accu_var.clone()];
        self.bound.extend(inner.iter_var2.clone());
        for part in [
            &inner.accu_init,
            &inner.loop_cond,
            &inner.loop_step,
            &inner.result,
        ] {
            self.expression(part, depth)?;
        }
        self.bound.clear();
        Ok(())
    }

    /// The set of names read so far, when this is a variable that has members by name.
    fn members(&mut self, expression: &IdedExpr) -> Option<&mut BTreeSet<String>> {
        let Expr::Ident(name) = &expression.expr else {
            return None;
        };
        if self.bound.contains(name) {
            return None;
        }
        match name.as_str() {
            "claims" => {
                self.reads.variables.insert("claims");
                Some(&mut self.reads.claims)
            }
            "path" => {
                self.reads.variables.insert("path");
                Some(&mut self.reads.parameters)
            }
            _ => None,
        }
    }

    fn ident(&mut self, name: &str) -> Result<(), Flaw> {
        if self.bound.iter().any(|bound| bound == name) {
            return Ok(());
        }
        let Some(known) = VARIABLES.into_iter().find(|known| *known == name) else {
            let hint = nearest(name, VARIABLES.into_iter()).map_or_else(
                || format!("known here: {}", VARIABLES.join(", ")),
                |meant| format!("did you mean `{meant}`?"),
            );
            return Err(self.flaw(name, format!("unknown variable `{name}`"), Some(&hint)));
        };
        if known == "claims" || known == "path" {
            let hint = format!("`{known}.NAME`, or `has({known}.NAME)` to ask whether it is there");
            return Err(self.flaw(
                name,
                format!("`{known}` is read by names alone"),
                Some(&hint),
            ));
        }
        self.reads.variables.insert(known);
        Ok(())
    }

    fn function(&self, name: &str) -> Result<(), Flaw> {
        let is_operator = !name.starts_with(|first: char| first.is_ascii_alphabetic());
        if is_operator || FUNCTIONS.contains(&name) {
            return Ok(());
        }
        let hint = nearest(name, FUNCTIONS.into_iter()).map_or_else(
            || format!("known here: {}", FUNCTIONS.join(", ")),
            |meant| format!("did you mean `{meant}`?"),
        );
        Err(self.flaw(name, format!("unknown function `{name}`"), Some(&hint)))
    }

    /// A flaw at the first place of a word, or of the whole.
    fn flaw(&self, word: &str, message: String, hint: Option<&str>) -> Flaw {
        let range = self
            .text
            .find(word)
            .filter(|_| !word.is_empty())
            .map_or(0..self.text.len(), |at| at..at + word.len());
        Flaw {
            message,
            hint: hint.map(ToOwned::to_owned),
            range,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn principal() -> Principal {
        let claims = json!({"level": 3, "dept": "a", "list": [1, 2], "deep": {"x": true}});
        Principal {
            roles: vec!["reader".into(), "admin".into()],
            claims: claims.as_object().cloned().map(Box::new),
            ..Principal::named("alice", Arc::from("corp"))
        }
    }

    fn outcome(text: &str) -> Outcome {
        let expression =
            Expression::compile(text).unwrap_or_else(|flaw| panic!("{text}: {flaw:?}"));
        let principal = principal();
        let path = [("id".into(), "7".into())];
        expression.evaluate(&Facts {
            method: "GET",
            host: "app.example",
            client: [192, 0, 2, 1].into(),
            path: &path,
            principal: &principal,
            claims: principal.claims.as_deref(),
            withheld: None,
        })
    }

    fn flaw(text: &str) -> String {
        Expression::compile(text).expect_err(text).message
    }

    #[test]
    fn values() {
        for (text, wanted) in [
            ("method == 'GET' && path.id == '7'", Outcome::True),
            ("path['id'] == '8'", Outcome::False),
            ("'admin' in roles && size(roles) == 2", Outcome::True),
            ("roles.exists(r, r.endsWith('min'))", Outcome::True),
            ("roles.all(r, r == 'admin')", Outcome::False),
            ("claims.level > 2 && claims.deep.x", Outcome::True),
            ("2 in claims.list", Outcome::True),
            ("has(claims.absent)", Outcome::False),
            ("claims.absent == 1", Outcome::Failed),
            ("!(claims.absent == 1)", Outcome::Failed),
            ("subject > 1", Outcome::Failed),
            ("subject", Outcome::NotBoolean),
            ("claims.level", Outcome::NotBoolean),
            ("1 / 0 == 1", Outcome::Failed),
            ("9223372036854775807 + 1 > 0", Outcome::Failed),
            ("claims.list[5] == 1", Outcome::Failed),
            ("client == '192.0.2.1' ? true : false", Outcome::True),
        ] {
            assert_eq!(outcome(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_read_is_known_beforehand() {
        let read =
            Expression::compile("claims.a.b == claims['c d'] && has(claims.e) && path.id == 'x'")
                .expect("good");
        assert_eq!(read.claims().collect::<Vec<_>>(), ["a", "c d", "e"]);
        assert_eq!(read.parameters().collect::<Vec<_>>(), ["id"]);
    }

    #[test]
    fn what_cannot_be_bounded_or_known_is_refused() {
        for (text, wanted) in [
            ("", "not an expression"),
            ("a b", "not an expression"),
            ("1 +", "not an expression"),
            ("secret == 'x'", "unknown variable `secret`"),
            ("subject.matches('a')", "unknown function `matches`"),
            (
                "timestamp('2020-01-01T00:00:00Z') > 1",
                "unknown function `timestamp`",
            ),
            ("claims == {}", "`claims` is read by names alone"),
            ("claims[subject] == 1", "`claims` is read by names alone"),
            ("'a' in path", "`path` is read by names alone"),
            (
                "roles.map(a, roles.map(b, a)) == []",
                "a macro stands within a macro",
            ),
            (
                "roles.all(a, roles.exists(b, a == b))",
                "a macro stands within a macro",
            ),
        ] {
            assert!(flaw(text).starts_with(wanted), "{text}: {}", flaw(text));
        }
    }

    #[test]
    fn length_and_depth_have_an_end() {
        let long = format!("subject == '{}'", "x".repeat(MOST_BYTES));
        assert!(flaw(&long).contains("bytes at most"));
        for (open, close) in [
            ("(", ")"),
            ("[", "]"),
            ("!", ""),
            ("-", ""),
            ("true?true:", ""),
        ] {
            let text = |times: usize| format!("{}true{}", open.repeat(times), close.repeat(times));
            assert!(flaw(&text(90)).contains("too deep"), "{open}");
        }
        let chain = vec!["true"; 140].join("&&");
        let _ = Expression::compile(&chain).map(|chain| chain.text().len());
        let sum = format!("{} == 1", vec!["1"; 200].join("+"));
        let _ = Expression::compile(&sum).map(|sum| sum.text().len());
        let members = format!("claims{} == 1", ".a".repeat(300));
        let _ = Expression::compile(&members).map(|members| members.text().len());
    }
}
