//! Writes docs/settings.md: `cargo run -p agent-core --example settings_doc`.

fn main() -> std::io::Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
    std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))?;
    std::fs::write(path, agent_core::settings::docs())
}
