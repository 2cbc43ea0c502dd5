//! Determines the module of a package, as far as the build information has it.

use crate::{
    go::{
        gobin::{BuildInfo, GoBinary},
        inittasks::package_of,
    },
    incident::frame_class::{Class, classify},
};

/// The modules of one binary.
#[derive(Debug, Clone, Default)]
pub struct Modules {
    /// Import path of package main.
    main_package: Option<String>,
    main: Option<String>,
    go: String,
    /// Path and version of each module including the main one; longest path first.
    list: Vec<(String, String)>,
}

impl Modules {
    /// Returns the modules from which `bin` was built.
    pub fn of(bin: &GoBinary) -> Self {
        Self::new(&bin.build_info(), &bin.version().raw)
    }

    fn new(info: &BuildInfo, go: &str) -> Self {
        let mut list: Vec<_> =
            info.main.iter().chain(&info.deps).map(|m| (m.path.clone(), m.version.clone())).collect();
        list.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        let main = info.main.as_ref().map(|m| m.path.clone());
        Self { main_package: info.path.clone(), main, go: go.to_owned(), list }
    }

    /// Returns import path and module (`path version`) of a function, given its name; `None` for names
    /// without a package, or for packages of a module that the build information does not name.
    pub fn of_function(&self, function: &str, file: Option<&str>) -> (Option<String>, Option<String>) {
        if crate::incident::frame_class::package(function).is_none() {
            return (None, None);
        }
        let package = package_of(function);
        let path = match (&self.main_package, package.as_str()) {
            (Some(main), "main") => main.as_str(),
            _ => &package,
        };
        let within = |module: &str| {
            path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let module = match self.list.iter().find(|(module, _)| within(module)) {
            Some((module, version)) => Some(format!("{module} {version}").trim_end().to_owned()),
            None => match classify(function, file, self.main.as_deref()) {
                Class::Standard | Class::Runtime => Some(format!("std {}", self.go)),
                Class::User | Class::ThirdParty => None,
            },
        };
        (Some(package), module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::gobin::Module;

    #[test]
    fn the_longest_module_path_wins() {
        let module = |path: &str, version: &str| Module {
            path: path.into(),
            version: version.into(),
            ..Module::default()
        };
        let info = BuildInfo {
            path: Some("example.com/app/cmd/serve".into()),
            main: Some(module("example.com/app", "(devel)")),
            deps: vec![module("example.com/app/api", "v1.2.0"), module("gopkg.in/yaml.v3", "v3.0.1")],
            settings: Vec::new(),
        };
        let modules = Modules::new(&info, "go1.24.11");
        let of = |function: &str| {
            let (package, module) = modules.of_function(function, None);
            format!("{} | {}", package.unwrap_or_default(), module.unwrap_or_default())
        };
        assert_eq!(of("main.main"), "main | example.com/app (devel)");
        assert_eq!(of("example.com/app/api.(*C).Get"), "example.com/app/api | example.com/app/api v1.2.0");
        assert_eq!(of("example.com/app/apiary.F"), "example.com/app/apiary | example.com/app (devel)");
        assert_eq!(of("gopkg.in/yaml%2ev3.Unmarshal"), "gopkg.in/yaml.v3 | gopkg.in/yaml.v3 v3.0.1");
        assert_eq!(of("runtime.gopanic"), "runtime | std go1.24.11");
        assert_eq!(of("example.org/other.F"), "example.org/other | ");
        assert_eq!(of("crosscall2"), " | ");
    }
}
