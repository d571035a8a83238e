//! The proof of the BPF object, on a stand-in folder; only the last test needs a compiler.

use std::path::PathBuf;

use super::*;

/// A folder with sources, an object and their lock file, deleted on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("xtask-bpf-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("folder");
        fs::write(folder.join(SOURCE), "int one;\n").expect("source");
        fs::write(folder.join("a.h"), "/* a */\n").expect("header");
        fs::write(folder.join(OBJECT), "object").expect("object");
        let lock = Lock::of(&folder, b"object", "14.0.6").expect("lock");
        fs::write(folder.join(LOCK), lock.to_string()).expect("lock");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_no_longer_belongs_together_is_named() {
    let check = |name: &str, file: &str, content: Option<&str>, expected: Option<&str>| {
        let folder = Folder::new(name);
        match content {
            Some(content) => fs::write(folder.0.join(file), content).expect("write"),
            None => fs::remove_file(folder.0.join(file)).expect("remove"),
        }
        let found = recorded(&folder.0).err().map(|error| format!("{error:#}"));
        match (&found, expected) {
            (None, None) => {}
            (Some(found), Some(expected)) => assert!(found.contains(expected), "{found}"),
            _ => panic!("{found:?} where {expected:?} was expected"),
        }
    };
    check("same", SOURCE, Some("int one;\n"), None);
    check("note", "notes.md", Some("not a source"), None);
    check("edited", SOURCE, Some("int two;\n"), Some("netdiag.bpf.c changed"));
    check("header", "a.h", Some("/* b */\n"), Some("a.h changed"));
    check("new", "b.h", Some("/* b */\n"), Some("b.h was added"));
    check("gone", "a.h", None, Some("a.h was removed"));
    check("object", OBJECT, Some("another"), Some("the object is not the one"));
    check("no-lock", LOCK, None, Some(LOCK));
    check("odd", LOCK, Some("object 1\nwhat is this\n"), Some("line 2: `what is this`"));
    check("torn", LOCK, Some("object 1\n"), Some("no `clang` line"));
}

#[test]
fn the_place_of_the_checkout_leaves_no_trace() {
    if let Some((what, _)) = NEEDS.iter().find(|(what, _)| match what.strip_prefix('/') {
        Some(_) => !Path::new(what).exists(),
        None => !command::exists(what),
    }) {
        println!("skipped: compiling a BPF program in two places ({what} not found)");
        return;
    }
    let source = "__attribute__((section(\"raw_tp/x\"), used)) int x(void *ctx) { return 0; }\n";
    let objects = ["here", "somewhere-else"].map(|name| {
        let folder = Folder::new(name);
        fs::write(folder.0.join(SOURCE), source).expect("source");
        compile(&folder.0, &folder.0.join(OBJECT)).expect("compiles")
    });
    assert_eq!(objects[0], objects[1]);
    assert!(objects[0].windows(4).any(|window| window == b".BTF"), "BTF is kept");
    assert!(!objects[0].windows(6).any(|window| window == b".debug"), "debug information is not");
}
