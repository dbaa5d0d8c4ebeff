//! Which implementation of the kernels runs.

use std::sync::OnceLock;

/// The environment variable that names the path to take instead of the fastest.
pub const SIMD: &str = "SHIFTWISE_SIMD";

/// An implementation of the kernels. All give the same bytes; the choice is about speed only.
///
/// A kernel that a path has no vectors of its own for runs on the path before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Plain Rust: the fallback, and what the others are tested against.
    Portable,
    /// AVX2 and FMA, found at run time.
    Avx2,
    /// AVX-512 (F, BW, VL, VNNI), found at run time.
    Avx512,
}

/// The path that runs where none is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The path.
    pub path: Path,
    /// Why it is another than the one that [`SIMD`] asks for.
    pub note: Option<String>,
}

impl Path {
    /// All paths, from the slowest to the fastest.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// Its name in [`SIMD`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The path that [`choice`] has, or the fastest where that has none.
    #[must_use]
    pub fn detect() -> Self {
        choice().as_ref().map_or_else(|_| Self::fastest(None), |choice| choice.path)
    }

    /// The fastest path that this machine can run, up to a given one.
    fn fastest(most: Option<Self>) -> Self {
        let allowed = Self::ALL.iter().take_while(|path| most.is_none_or(|most| **path as u8 <= most as u8));
        allowed.copied().filter(|path| path.is_available()).last().unwrap_or(Self::Portable)
    }

    /// Whether this machine can run the path.
    #[must_use]
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            match self {
                Self::Portable => true,
                Self::Avx2 => avx2(),
                Self::Avx512 => {
                    avx2()
                        && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512vl")
                        && is_x86_feature_detected!("avx512vnni")
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Self::Portable
        }
    }
}

/// What runs in this process: the path that the environment's [`SIMD`] names, or the fastest one. It is read once.
///
/// Errors, as a sentence: a name that no path has.
pub fn choice() -> &'static Result<Choice, String> {
    static CHOICE: OnceLock<Result<Choice, String>> = OnceLock::new();
    CHOICE.get_or_init(|| {
        let wanted = std::env::var_os(SIMD);
        choose(wanted.map(|name| name.to_string_lossy().into_owned()).as_deref())
    })
}

/// The choice for a value of [`SIMD`]. What this machine lacks is replaced by the fastest path below it.
fn choose(wanted: Option<&str>) -> Result<Choice, String> {
    let Some(name) = wanted.filter(|name| !name.is_empty()) else {
        return Ok(Choice { path: Path::fastest(None), note: None });
    };
    let Some(wanted) = Path::ALL.into_iter().find(|path| path.name() == name) else {
        let names = Path::ALL.map(Path::name).join(", ");
        return Err(format!("{SIMD} is {name:?}, one of {names} is expected"));
    };
    let path = Path::fastest(Some(wanted));
    let note = (path != wanted).then(|| format!("{SIMD} is {name}, which this processor lacks: {} runs", path.name()));
    Ok(Choice { path, note })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_forces_a_path_or_the_fastest_below_it() {
        assert_eq!(choose(Some("scalar")), Ok(Choice { path: Path::Portable, note: None }));
        for path in Path::ALL {
            let choice = choose(Some(path.name())).unwrap();
            assert!(choice.path.is_available());
            assert_eq!(choice.path == path, path.is_available());
            assert_eq!(choice.note.is_none(), path.is_available());
        }
        assert_eq!(choose(None), choose(Some("")));
        let fastest = choose(None).unwrap().path;
        assert!(Path::ALL.into_iter().filter(|path| path.is_available()).all(|path| path as u8 <= fastest as u8));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert_eq!(
            choose(Some("sse9")),
            Err(r#"SHIFTWISE_SIMD is "sse9", one of scalar, avx2, avx512 is expected"#.to_owned())
        );
    }
}
