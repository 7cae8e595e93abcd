//! Text in aligned columns.

/// The peers of a reply to MESH as rows: the address, then its description, part by part.
pub(super) fn peers(fields: &[&str]) -> Vec<Vec<String>> {
    let row = |field: &&str| {
        let field = field.trim_matches('"');
        let (address, rest) = field.split_once(' ').unwrap_or((field, ""));
        let parts = rest.split("; ").filter(|part| !part.is_empty());
        std::iter::once(address).chain(parts).map(str::to_owned).collect()
    };
    fields.iter().map(row).collect()
}

/// Lines in which each column is as wide as its widest cell.
pub(super) fn lines(rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::{lines, peers};

    #[test]
    fn columns_stand_below_each_other() {
        let rows =
            peers(&["\"10.0.0.2:5454 linked; round trip 60 us; filter known\"", "\"10.0.0.33:5454 backup\""]);
        assert_eq!(
            lines(&rows),
            ["10.0.0.2:5454   linked  round trip 60 us  filter known", "10.0.0.33:5454  backup"]
        );
        assert!(lines(&[]).is_empty());
    }
}
