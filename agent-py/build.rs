//! Makes `cfg(Py_3_12)`, `cfg(Py_GIL_DISABLED)` and their like available.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
