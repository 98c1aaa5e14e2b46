//! Facts about this process for its resource, collected once, and the exporter's configuration.

use std::ffi::CStr;
use std::sync::OnceLock;

use agent_core::resource::{self, ProcessFacts};
use agent_core::settings::{self as core, Settings};
use exporters::{Exporter, ExporterConfig, Otlp, Proxy, Resource};
use pyo3::prelude::*;

use crate::ffi::intern;
use crate::{diagnostics, lifecycle, settings};

static FACTS: OnceLock<ProcessFacts> = OnceLock::new();

/// Reads what only Python knows; the rest is read on the exporter thread.
pub fn collect(py: Python<'_>) -> PyResult<()> {
    let sys = PyModule::import(py, intern!(py, "sys"))?;
    let text = |value: PyResult<Bound<'_, PyAny>>| {
        value.and_then(|value| value.extract::<String>()).unwrap_or_default()
    };
    let executable_path = text(sys.getattr(intern!(py, "executable")));
    let executable_name = executable_path.rsplit('/').next().unwrap_or_default().to_owned();
    let runtime_version = text(sys.getattr(intern!(py, "version")));
    let number = runtime_version.split_whitespace().next().unwrap_or_default().to_owned();
    let implementation = sys.getattr(intern!(py, "implementation"));
    let _ = FACTS.set(ProcessFacts {
        executable_name,
        executable_path,
        runtime_name: text(
            implementation.and_then(|implementation| implementation.getattr(intern!(py, "name"))),
        ),
        runtime_version: number,
        runtime_description: runtime_version.replace('\n', " "),
        ..ProcessFacts::default()
    });
    Ok(())
}

fn resource(settings: &Settings) -> Resource {
    let mut facts = FACTS.get().cloned().unwrap_or_default();
    facts.pid = std::process::id();
    facts.parent_pid = std::os::unix::process::parent_id();
    facts.command = std::env::args_os().next().unwrap_or_default().to_string_lossy().into_owned();
    facts.os_type = "linux".to_owned();
    // SAFETY: `uname` fills the structure, whose fields are then NUL-terminated.
    let names = unsafe {
        let mut names: libc::utsname = std::mem::zeroed();
        libc::uname(&raw mut names);
        names
    };
    let field = |field: &[libc::c_char]| {
        let bytes: Vec<u8> = field.iter().map(|c| *c as u8).collect();
        CStr::from_bytes_until_nul(&bytes).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    };
    facts.host_name = field(&names.nodename);
    facts.host_arch = resource::host_arch(&field(&names.machine)).to_owned();
    facts.os_version = field(&names.release);
    let instance = uuid(agent_core::local::with_ids(|ids| ids.bytes()));
    Resource { attributes: resource::build(&facts, &settings.resource, &instance) }
}

/// `service.name`, as in the resource.
pub fn service_name() -> String {
    resource::service_name(&FACTS.get().cloned().unwrap_or_default(), &settings::get().resource)
}

/// A version 4 UUID (RFC 9562) from sixteen random bytes.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut hex = [0; 32];
    agent_core::id::write_hex(&bytes, &mut hex);
    let hex = String::from_utf8_lossy(&hex);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The exporters as the settings want them.
pub fn exporter_config(settings: &'static Settings) -> ExporterConfig {
    let exporters = settings.exporters.iter().map(|exporter| match exporter {
        core::Exporter::Otlp => Exporter::Otlp(Box::new(receiver(&settings.otlp))),
        core::Exporter::OtlpFile => Exporter::File(settings.otlp_file.clone()),
        core::Exporter::Console => Exporter::Console,
    });
    let delivery = &settings.delivery;
    ExporterConfig {
        schedule_delay: delivery.schedule_delay,
        export_timeout: delivery.export_timeout,
        max_export_batch_size: delivery.max_export_batch_size,
        max_queue_size: delivery.max_queue_size,
        queue_max_bytes: delivery.queue_max_bytes,
        retry_max_bytes: delivery.retry_max_bytes,
        exit_timeout: delivery.exit_timeout,
        resource: Box::new(|_generation| resource(settings::get())),
        log: Box::new(|level, text| diagnostics::say_patiently(level.into(), text)),
        after_sigterm: Box::new(lifecycle::after_sigterm_flush),
        ..ExporterConfig::new(exporters.collect())
    }
}

fn receiver(otlp: &core::Otlp) -> Otlp {
    Otlp {
        headers: otlp.headers.clone(),
        timeout: otlp.timeout,
        compression: otlp.compression,
        ca_file: otlp.certificate.clone(),
        client_cert: otlp.client_certificate.clone(),
        client_key: otlp.client_key.clone(),
        variables: otlp.variables,
        insecure: otlp.insecure,
        proxy: Proxy::from_env(),
        ..Otlp::new(otlp.protocol, otlp.endpoint.clone())
    }
}
