package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
)

const (
	license = "Apache-2.0" // of the project, as SPDX names it
	unknown = "NOASSERTION"
)

// writeSBOM writes the list of everything in the programs, the agent's and the plugin's: their Go modules and the standard library, from
// the information that go build puts into each program.
func (r *release) writeSBOM() error {
	doc := &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: program + "-" + r.version,
		CreationInfo: &spdx.CreationInfo{
			Created:  r.date.Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: program + "-hack-release"}},
		},
	}
	var sums []string
	known := map[common.ElementID]*spdx.Package{}
	for _, program := range r.programs {
		sum, err := checksum(r.file(program.asset))
		if err != nil {
			return err
		}
		sums = append(sums, sum)
		name := strings.TrimSuffix(program.asset, ".tar.gz")
		binary := newPackage(name, r.version, elementID("Binary", name))
		binary.PackageFileName, binary.PrimaryPackagePurpose = program.asset, "APPLICATION"
		binary.PackageDownloadLocation = fmt.Sprintf("%s/releases/download/%s/%s", source, r.version, program.asset)
		binary.PackageLicenseConcluded, binary.PackageLicenseDeclared = license, license
		binary.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: sum}}
		known[binary.PackageSPDXIdentifier] = binary
		doc.Relationships = append(doc.Relationships, related(doc.SPDXIdentifier, "DESCRIBES", binary.PackageSPDXIdentifier))
		for _, p := range contents(program.info) {
			known[p.PackageSPDXIdentifier] = p
			doc.Relationships = append(doc.Relationships, related(binary.PackageSPDXIdentifier, "CONTAINS", p.PackageSPDXIdentifier))
		}
	}
	for _, p := range known {
		doc.Packages = append(doc.Packages, p)
	}
	slices.SortFunc(doc.Packages, func(a, b *spdx.Package) int { return cmp.Compare(a.PackageSPDXIdentifier, b.PackageSPDXIdentifier) })
	// The namespace must be the address of this document alone; nothing needs to be there.
	doc.DocumentNamespace = fmt.Sprintf("%s/spdx/%s/%.16s-%.16s", source, r.version, sums[0], sums[1])

	file, err := os.Create(r.file("sbom.spdx.json"))
	if err != nil {
		return err
	}
	return errors.Join(spdxjson.Write(doc, file, spdxjson.Indent("  ")), file.Close())
}

// contents returns the modules in a program, and the standard library.
func contents(info *debug.BuildInfo) (packages []*spdx.Package) {
	add := func(name, version string) {
		p := newPackage(name, version, elementID("Module", name+"-"+version))
		p.PrimaryPackagePurpose = "LIBRARY"
		p.PackageExternalReferences = []*spdx.PackageExternalReference{{
			Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: "pkg:golang/" + name + "@" + version,
		}}
		packages = append(packages, p)
	}
	add("stdlib", strings.TrimPrefix(info.GoVersion, "go"))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		add(m.Path, m.Version)
	}
	return packages
}

func newPackage(name, version string, id common.ElementID) *spdx.Package {
	return &spdx.Package{
		PackageName: name, PackageVersion: version, PackageSPDXIdentifier: id, PackageDownloadLocation: unknown,
		IsFilesAnalyzedTagPresent: true, PackageLicenseConcluded: unknown, PackageLicenseDeclared: unknown, PackageCopyrightText: unknown,
	}
}

// elementID returns an identifier that SPDX allows: letters, digits, dots and hyphens.
func elementID(kind, name string) common.ElementID {
	return common.ElementID(kind + "-" + regexp.MustCompile(`[^a-zA-Z0-9.-]+`).ReplaceAllString(name, "-"))
}

func related(a common.ElementID, how string, b common.ElementID) *spdx.Relationship {
	return &spdx.Relationship{RefA: common.DocElementID{ElementRefID: a}, RefB: common.DocElementID{ElementRefID: b}, Relationship: how}
}
