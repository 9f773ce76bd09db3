//! `fanfare token`: makes a token out of the configuration's secret, to try things with. Applications make their own.

use anyhow::{Context as _, bail};
use clap::Args;
use fanfare_protocol::grant::Verb;
use serde_json::{Map, Value, json};

use super::{answer, print};
use crate::auth::jwt;
use crate::clock::Clock;
use crate::config::{Config, Jwt};

/// What the token is to say.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanfare token --user ann                           with the secret of the configuration, good for an hour
  fanfare token --user ann --allow 'room:*=subscribe,publish' --channel user:ann
  fanfare token --user ann --info '{\"name\":\"Ann\"}' --ttl 0
  FANFARE__AUTH__JWT__HMAC_SECRET=secret fanfare token --user ann --json | jq .claims")]
pub(super) struct Claims {
    /// Who holds it (`sub`).
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Seconds for which it is good; 0 for ever.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    ttl: u64,
    /// A channel that its holder is subscribed to without asking, as often as needed.
    #[arg(long, value_name = "CHANNEL")]
    channel: Vec<String>,
    /// What it allows, as often as needed: --allow 'room:*=subscribe,publish'.
    #[arg(long, value_name = "CHANNELS=VERBS")]
    allow: Vec<String>,
    /// What others are shown of its holder: any JSON.
    #[arg(long, value_name = "JSON")]
    info: Option<String>,
    /// The token's own name (`jti`).
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

/// Prints a token, signed with HS256.
pub(super) fn run(config: &Config, claims: &Claims, json: bool) -> anyhow::Result<()> {
    let Some((issuer, secret)) = config.auth.jwt.as_deref().and_then(Jwt::secret) else {
        bail!(
            "there is no secret to sign with: set auth.jwt.hmac_secret (whoever has the private half of a public key makes tokens)"
        );
    };
    let mut all = claims.read()?;
    let now = Clock::start().unix().0 / 1_000_000;
    all.insert("iat".into(), json!(now));
    if claims.ttl > 0 {
        all.insert("exp".into(), json!(now.saturating_add(claims.ttl)));
    }
    all.extend(issuer.name.as_ref().map(|issuer| ("iss".to_owned(), json!(issuer))));
    all.extend(issuer.audience.as_ref().map(|audience| ("aud".to_owned(), json!(audience))));
    let claims = Value::Object(all);
    let token = jwt::sign(secret, claims.to_string().as_bytes());
    if json { answer(&json!({"token": token, "claims": claims})) } else { print(&format!("{token}\n")) }
}

impl Claims {
    fn read(&self) -> anyhow::Result<Map<String, Value>> {
        let mut all = Map::new();
        all.extend(self.user.as_ref().map(|user| ("sub".to_owned(), json!(user))));
        all.extend(self.id.as_ref().map(|id| ("jti".to_owned(), json!(id))));
        if let Some(info) = &self.info {
            let info: Value = serde_json::from_str(info).context("--info takes JSON")?;
            all.insert("info".into(), info);
        }
        if !self.channel.is_empty() {
            all.insert("channels".into(), json!(self.channel));
        }
        let allow: Vec<Value> = self.allow.iter().map(|it| allowance(it)).collect::<anyhow::Result<_>>()?;
        if !allow.is_empty() {
            all.insert("allow".into(), Value::Array(allow));
        }
        Ok(all)
    }
}

fn allowance(text: &str) -> anyhow::Result<Value> {
    let Some((channels, verbs)) = text.rsplit_once('=') else {
        bail!("--allow takes CHANNELS=VERBS, such as 'room:*=subscribe,publish', not {text:?}");
    };
    let (channels, verbs): (Vec<_>, Vec<_>) = (channels.split(',').collect(), verbs.split(',').collect());
    if let Some(word) = verbs.iter().find(|word| Verb::parse(word).is_none()) {
        bail!("--allow {text:?}: {word:?} is none of subscribe, publish, presence and history");
    }
    Ok(json!({"channels": channels, "can": verbs}))
}
