//! Bindings of the Duramen component, generated from `engine/wit`.
//!
//! A crate of its own, so that generated glue and written code never share a
//! file: the component's code is checked by the same lints as everything else,
//! and what the generator emits stays behind this crate's face.
//!
//! The generator documents what the WIT documents; the rest has no text.
#![allow(missing_docs)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "duramen",
    pub_export_macro: true,
    default_bindings_module: "duramen_bindings",
});
