//! Information in a Go program's ELF file outside the pclntab: the build, and the sections the linker kept.
//!
//! Also covers files that [`GoBinary`] rejects. Knows no functions and no runtime structs.

use std::fmt::Write as _;

use object::elf;

use super::{
    BuildInfo, Error, GoBinary, GoVersion, LoadSegment, Section, SharedBytes, buildinfo, image::Image,
    release,
};

/// A Go program of any release and architecture, limited to ELF headers and build information.
#[derive(Debug)]
pub struct GoFile {
    image: Image,
    version: GoVersion,
}

/// Returns release and build information of any Go program, including releases that [`GoBinary`] rejects.
///
/// # Errors
/// Returns an error when the file is not ELF or not Go.
pub fn identify(bytes: SharedBytes) -> Result<(GoVersion, BuildInfo), Error> {
    let file = GoFile::parse(bytes)?;
    let info = file.build_info();
    Ok((file.version, info))
}

impl GoFile {
    /// Parses the headers and locates the build information.
    ///
    /// # Errors
    /// Returns an error when the file is not ELF or not Go.
    pub fn parse(bytes: SharedBytes) -> Result<Self, Error> {
        let image = Image::parse(bytes)?;
        let version = release(&image)?;
        Ok(Self { image, version })
    }

    /// Returns the Go release of the build.
    pub fn version(&self) -> &GoVersion {
        &self.version
    }

    /// Returns the GOARCH of the machine; `None` for one that Go has no port to.
    pub fn arch(&self) -> Option<&'static str> {
        Some(match self.image.machine {
            elf::EM_X86_64 => "amd64",
            elf::EM_AARCH64 => "arm64",
            elf::EM_RISCV => "riscv64",
            elf::EM_LOONGARCH => "loong64",
            elf::EM_PPC64 => "ppc64le",
            elf::EM_MIPS => "mips64le",
            _ => return None,
        })
    }

    /// Reports whether the symbol table contains `name`; false in a stripped file. A linear search.
    pub fn has_symbol(&self, name: &str) -> bool {
        self.image.symbol(name).is_some()
    }
}

macro_rules! said_by_the_file {
    ($for:ident) => {
        impl $for {
            /// Returns module, dependencies and settings; decoded on each call.
            pub fn build_info(&self) -> BuildInfo {
                buildinfo::locate(&self.image).map(|(_, text)| BuildInfo::parse(text)).unwrap_or_default()
            }

            /// Returns the linker's GNU build id, in hex (Go 1.24 and later, or external linking).
            pub fn gnu_build_id(&self) -> Option<String> {
                self.image.gnu_build_id()
            }

            /// Returns Go's own build id: four hashes separated by slashes.
            pub fn go_build_id(&self) -> Option<String> {
                self.image.go_build_id()
            }

            /// Reports whether the load address is chosen at run time (position-independent executable).
            pub fn is_pie(&self) -> bool {
                self.image.elf_type == elf::ET_DYN
            }

            /// Reports whether there is a symbol table, which `-s` and strip(1) remove.
            pub fn has_symtab(&self) -> bool {
                self.image.sections.iter().any(|s| s.kind == elf::SHT_SYMTAB)
            }

            /// Reports whether there is debug information.
            pub fn has_dwarf(&self) -> bool {
                [".debug_info", ".zdebug_info"].iter().any(|name| self.image.section(name).is_some())
            }

            /// Returns the sections, in file order, without the empty first one. Empty when the section
            /// headers were removed.
            pub fn sections(&self) -> &[Section] {
                match self.image.sections.as_slice() {
                    [first, rest @ ..] if first.kind == elf::SHT_NULL => rest,
                    all => all,
                }
            }

            /// Returns the segments that the loader maps, in file order.
            pub fn load_segments(&self) -> impl Iterator<Item = LoadSegment> {
                self.image.segments.iter().map(|s| LoadSegment {
                    address: s.vaddr,
                    file_offset: s.offset,
                    file_size: s.filesz,
                    executable: s.exec,
                })
            }
        }
    };
}
said_by_the_file!(GoFile);
said_by_the_file!(GoBinary);

impl Image {
    fn gnu_build_id(&self) -> Option<String> {
        let id = self.note(b"GNU\0", elf::NT_GNU_BUILD_ID).filter(|id| id.len() <= 64)?;
        Some(id.iter().fold(String::new(), |mut hex, b| {
            let _ = write!(hex, "{b:02x}");
            hex
        }))
    }

    /// <https://github.com/golang/go/blob/go1.24.11/src/cmd/link/internal/ld/elf.go> ELF_NOTE_GOBUILDID_TAG
    fn go_build_id(&self) -> Option<String> {
        let id = self.note(b"Go\0\0", 4).filter(|id| id.len() <= 256)?;
        Some(String::from_utf8_lossy(id).trim_end_matches('\0').to_owned())
    }
}

impl Section {
    /// Returns the section type as readelf names it, or its number if it has no name here.
    pub fn kind_name(&self) -> String {
        let name = match self.kind {
            elf::SHT_NULL => "NULL",
            elf::SHT_PROGBITS => "PROGBITS",
            elf::SHT_SYMTAB => "SYMTAB",
            elf::SHT_STRTAB => "STRTAB",
            elf::SHT_RELA => "RELA",
            elf::SHT_HASH => "HASH",
            elf::SHT_DYNAMIC => "DYNAMIC",
            elf::SHT_NOTE => "NOTE",
            elf::SHT_NOBITS => "NOBITS",
            elf::SHT_REL => "REL",
            elf::SHT_DYNSYM => "DYNSYM",
            elf::SHT_INIT_ARRAY => "INIT_ARRAY",
            elf::SHT_FINI_ARRAY => "FINI_ARRAY",
            elf::SHT_PREINIT_ARRAY => "PREINIT_ARRAY",
            elf::SHT_GNU_HASH => "GNU_HASH",
            elf::SHT_GNU_VERDEF => "VERDEF",
            elf::SHT_GNU_VERNEED => "VERNEED",
            elf::SHT_GNU_VERSYM => "VERSYM",
            other => return format!("{other:#x}"),
        };
        name.to_owned()
    }

    /// Returns the flags as the letters that readelf prints; flags without a letter are omitted.
    pub fn flag_letters(&self) -> String {
        const LETTERS: [(u32, char); 10] = [
            (elf::SHF_WRITE, 'W'),
            (elf::SHF_ALLOC, 'A'),
            (elf::SHF_EXECINSTR, 'X'),
            (elf::SHF_MERGE, 'M'),
            (elf::SHF_STRINGS, 'S'),
            (elf::SHF_INFO_LINK, 'I'),
            (elf::SHF_LINK_ORDER, 'L'),
            (elf::SHF_GROUP, 'G'),
            (elf::SHF_TLS, 'T'),
            (elf::SHF_COMPRESSED, 'C'),
        ];
        LETTERS.iter().filter(|(flag, _)| self.flags & u64::from(*flag) != 0).map(|(_, c)| *c).collect()
    }
}
