//! `portcullis enrol`: gives somebody an authenticator app as second factor, with the address that the app is told.
//!
//! The secret is shown this once; the account keeps it sealed. A running gate reads the account when its page is next
//! asked, so nothing has to be reloaded. It is to be run as the user that the gate runs as. With `--invite` it gives a code
//! instead, with which somebody enrols in the browser.

use std::{
    fs::DirBuilder,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use zeroize::Zeroizing;

use super::{BAD_FILE, FileArgs, misused, print, run::color};
use crate::{
    config::{Loaded, Problem, Severity, load, nearest, render},
    identity::{
        account::{Account, Accounts},
        second_factor::SecondFactor,
        totp,
    },
    snapshot::{
        compile::{Compiled, compile},
        survivors::Survivors,
    },
    state::{clock, sessions::Owner},
};

const ENROLLED: &str = "the address is shown this once; whoever has it has the second factor";
const INVITED: &str = "the code is shown this once and counts for 24 hours; whoever has it beside the credential enrols";

const ADDED: &str = "the account keeps what it has, and the invitation adds to it; `--replace` takes all of it away";

/// `enrol`
#[derive(Clone, Debug, Args)]
pub struct EnrolArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Who says who it is: a name of `[issuers.NAME]`, or `api_keys`, `client_certificates`, `signers`
    #[arg(long, value_name = "NAME")]
    issuer: String,
    /// Take the place of an authenticator app that is enrolled; with `--invite`, of all that is
    #[arg(long)]
    replace: bool,
    /// Print an invitation instead, with which the account enrols in the browser, once within 24 hours
    #[arg(long)]
    invite: bool,
    /// Whose second factor it is: the subject, as the access line has it in `enduser.id`
    subject: String,
}

/// Enrols and prints the address. 0; 1: the account cannot be read or written, or has one; 2: bad usage or a bad file.
pub fn run(args: &EnrolArgs) -> ExitCode {
    let loaded = load(&args.file.path(), &args.file.set);
    let Some(compiled) = compile(&loaded, &loaded.problems, &Survivors::offline()) else {
        let mut errors = loaded.problems.sorted();
        errors.retain(|problem: &Problem| problem.severity == Severity::Error);
        eprint!("{}", render(&errors, &loaded.sources, color()));
        return ExitCode::from(BAD_FILE);
    };
    let Some(factor) = compiled.factor() else {
        return misused(
            "the file has no second factor\nhint: add `[mfa]` with `accounts`, and `[session]` with `keys`",
        );
    };
    let Some(issuer) = issuer(&args.issuer, &loaded, &compiled) else {
        return misused(&unknown(&args.issuer, &compiled));
    };
    if args.subject.is_empty() {
        return misused("nobody has an empty subject");
    }
    let owner = Owner {
        issuer: issuer.as_str().into(),
        subject: args.subject.as_str().into(),
    };
    let (done, note) = if args.invite {
        (invite(factor, &owner, args.replace), INVITED)
    } else {
        (enrol(factor, &owner, args.replace), ENROLLED)
    };
    match done {
        Ok(text) => {
            eprintln!("note: {note}");
            print(format!("{}\n", *text).as_bytes())
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The issuer as principals have it.
fn issuer(word: &str, loaded: &Loaded, compiled: &Compiled) -> Option<String> {
    let sections = ["api_keys", "client_certificates", "signers"];
    if sections.contains(&word) && loaded.root.get(word).is_some() {
        return Some(format!("[{word}]"));
    }
    let mut issuers = compiled.issuers().iter();
    issuers
        .any(|issuer| *issuer.rules().name == *word)
        .then(|| word.to_owned())
}

fn unknown(word: &str, compiled: &Compiled) -> String {
    let issuers = compiled.issuers().iter();
    let names: Vec<String> = issuers
        .map(|issuer| issuer.rules().name.to_string())
        .collect();
    let hint = match nearest(word, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => "the file has no `[issuers.NAME]`".to_owned(),
        None => format!("the file has `{}`", names.join("`, `")),
    };
    format!("`{word}` is no issuer of the file\nhint: {hint}")
}

fn enrol(factor: &SecondFactor, owner: &Owner, replace: bool) -> anyhow::Result<Zeroizing<String>> {
    let accounts = &factor.accounts;
    prepare(accounts.folder())?;
    let _held = accounts.hold().context("cannot use the accounts")?;
    let read = accounts.load(owner);
    let account = read.context("cannot use the account")?;
    let mut account = account.unwrap_or_else(|| Account::new(owner));
    if account.totp.is_some() && !replace {
        bail!(
            "the account has an authenticator app\nhint: `--replace` puts a new one in its place"
        );
    }
    let secret = totp::fresh_secret();
    if account.totp.take().is_some() {
        account.renew_mark();
    }
    Accounts::end_invitation(&mut account);
    accounts.put_totp(&mut account, &secret, (clock::unix_seconds(), 0));
    accounts.renew(&mut account);
    accounts.save(&account).context("cannot use the account")?;
    Ok(totp::enrolment(&factor.service, &owner.subject, &secret))
}

fn invite(
    factor: &SecondFactor,
    owner: &Owner,
    replace: bool,
) -> anyhow::Result<Zeroizing<String>> {
    let accounts = &factor.accounts;
    prepare(accounts.folder())?;
    let _held = accounts.hold().context("cannot use the accounts")?;
    let read = accounts.load(owner);
    let account = read.context("cannot use the account")?;
    let kept = account.filter(|_| !replace);
    let mut account = kept.unwrap_or_else(|| Account::new(owner));
    if account.is_enrolled() {
        eprintln!("note: {ADDED}");
    }
    accounts.renew(&mut account);
    let code = accounts.invite(&mut account, clock::unix_seconds());
    accounts.save(&account).context("cannot use the account")?;
    Ok(code)
}

/// Makes the folder, for its owner alone. In one of another user the gate could not read what is written.
fn prepare(folder: &Path) -> anyhow::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let owner = |folder: &Path| std::fs::metadata(folder).map(|about| about.uid());
    if user == 0 && owner(folder).is_err() {
        eprintln!(
            "warning: the folder `{}` is made for root alone: the gate must run as root to read it",
            folder.display()
        );
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    if owner(folder).is_ok_and(|owner| owner != user) {
        bail!(
            "the folder `{}` is another user's\nhint: run this as its owner, which is the user that the gate runs as",
            folder.display()
        );
    }
    Ok(())
}
