//! The settings in force, resolved once when the agent is activated.

use std::sync::OnceLock;

use agent_core::settings::Settings;

static SETTINGS: OnceLock<Settings> = OnceLock::new();

/// Resolves the settings from the environment and from `overrides` (flag names and values), once; later calls change
/// nothing. Returns what is to be said of bad values.
pub fn resolve(overrides: &[(String, String)]) -> Vec<String> {
    let mut said = Vec::new();
    SETTINGS.get_or_init(|| {
        let lookup = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let (settings, diagnostics) = Settings::resolve(&lookup, overrides);
        said = diagnostics.iter().map(|diagnostic| diagnostic.text().to_owned()).collect();
        settings
    });
    said
}

/// The settings in force; from the environment alone, in silence, before the agent is activated.
#[inline]
pub fn get() -> &'static Settings {
    if let Some(settings) = SETTINGS.get() {
        return settings;
    }
    resolve(&[]);
    SETTINGS.get_or_init(|| Settings::resolve(&|_| None, &[]).0)
}

/// Whether log records say which span they were made under, so that a span that is not recorded is seen as well.
#[inline]
pub fn log_correlation() -> bool {
    !get().disabled.contains("logging")
}
