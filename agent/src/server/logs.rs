//! The log options of a request, and the log.
//!
//! In: pod, container, the query. Out: the log as a stream, or why there is none.

use http::{Response, StatusCode};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use xebec_kubelet::{LogError, LogOptions, LogStream, Logs};

use super::answer::{self, Body};
use super::query::Query;

pub fn answer(logs: &Logs, namespace: &str, pod: &str, container: &str, query: &Query) -> Response<Body> {
    let options = match parse(query) {
        Ok(options) => options,
        Err(why) => return answer::text(StatusCode::BAD_REQUEST, &why),
    };
    match logs.open(namespace, pod, container, options) {
        Ok(chunks) => answer::stream(chunks),
        Err(error @ LogError::NoPod(_)) => answer::text(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error) => answer::text(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// `PodLogOptions` as query parameters.
fn parse(query: &Query) -> Result<LogOptions, String> {
    let mut options = LogOptions::default();
    let mut since_seconds = false;
    for (key, value) in query.pairs() {
        let number = || value.parse::<u64>().map_err(|_| format!("{key}={value}: not a number from 0"));
        let flag = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" | "" => Ok(false),
            _ => Err(format!("{key}={value}: true or false")),
        };
        match key {
            "follow" => options.follow = flag()?,
            "previous" => options.previous = flag()?,
            "timestamps" => options.timestamps = flag()?,
            "tailLines" => options.tail_lines = Some(number()?),
            "limitBytes" => {
                let limit = Some(number()?).filter(|limit| *limit > 0);
                options.limit_bytes = Some(limit.ok_or("limitBytes=0: must be greater than 0")?);
            }
            "sinceSeconds" => {
                let seconds = i64::try_from(number()?).ok().filter(|seconds| *seconds > 0);
                let seconds = seconds.ok_or_else(|| format!("{key}={value}: must be greater than 0"))?;
                let since = Timestamp::now().checked_sub(SignedDuration::from_secs(seconds));
                options.since = Some(since.unwrap_or(Timestamp::UNIX_EPOCH));
                since_seconds = true;
            }
            "sinceTime" if since_seconds => {
                return Err("at most one of sinceTime or sinceSeconds may be specified".to_owned());
            }
            "sinceTime" => {
                let time = value.parse().map_err(|_| format!("{key}={value}: not an RFC 3339 time"))?;
                options.since = Some(time);
            }
            "stream" => {
                options.stream = match value {
                    "" | "All" => None,
                    "Stdout" => Some(LogStream::Stdout),
                    "Stderr" => Some(LogStream::Stderr),
                    _ => return Err(format!("{key}={value}: All, Stdout or Stderr")),
                }
            }
            _ => {}
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_options_are_read_from_the_query() {
        let read = |text: &str| parse(&Query::parse(text));
        let options =
            read("follow=true&tailLines=5&sinceTime=2026-01-02T03%3A04%3A05%2B01:00&x=y&stream=Stderr")
                .unwrap();
        assert!(options.follow);
        assert_eq!(options.since, "2026-01-02T02:04:05Z".parse().ok());
        assert_eq!((options.tail_lines, options.stream), (Some(5), Some(LogStream::Stderr)));
        for bad in [
            "tailLines=-1",
            "follow=perhaps",
            "limitBytes=0",
            "sinceSeconds=0",
            "sinceTime=noon",
            "stream=Both",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z").is_err());
    }
}
